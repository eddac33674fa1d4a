"""Options behind a prompt that is read once are what each has in a pass of its own."""

import pytest
import torch
from asked_samples import scores_of

from fluoroscope.core.errors import ConfigError, InterventionError
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.replies import option_passes
from fluoroscope.interventions.replies.option_passes import read_ends, read_options
from fluoroscope.interventions.replies.option_texts import OptionTexts
from fluoroscope.interventions.replies.shared_prompts import can_keep, can_share
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.texts import Capture
from fluoroscope.models.tiny import tiny_model

DECODERS = [name for name, family in FAMILIES.items() if family.kind == "decoder"]
POINT = "1.resid_post"
CAPTURES = {"end": Capture(HookPoint(POINT), "max")}
ASKED = [
    ("some text to go on from", ("no", "yes", "four")),
    ("ab", ("q", "r")),
    ("x y and z", ("one", "two", "a")),
]


def of(tokens, *options, is_free=False):
    return OptionTexts(tuple(tokens), tuple(map(tuple, options)), is_free)


@pytest.mark.parametrize("family", DECODERS)
def test_shared_prompts_give_what_whole_rows_give(family, double_model, direction, monkeypatch):
    model = double_model(family)
    texts = OptionTexts.of_all(model, ASKED)
    edits = {POINT: AddDirection(direction(0)), "0.resid_post": AddDirection(direction(1))}
    assert can_share(model, texts)
    shared = read_options(model, texts, edits, CAPTURES)
    monkeypatch.setattr(option_passes, "can_share", lambda *_: False)
    whole = read_options(model, texts, edits, CAPTURES)
    for one, other in zip(shared, whole, strict=True):
        assert one.sums == pytest.approx(other.sums, abs=1e-9)
        torch.testing.assert_close(one.captured["end"], other.captured["end"], rtol=0, atol=1e-9)
        assert (one.n_tokens, one.preferred, one.n_edits) == (
            other.n_tokens,
            other.preferred,
            other.n_edits,
        )


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "falcon"])
def test_ends_are_those_of_a_pass_over_whole_prompts(family, double_model, monkeypatch):
    model = double_model(family)
    prompts = [model.tokenizer(prompt)["input_ids"] for prompt, _ in ASKED]
    kept = read_ends(model, prompts, CAPTURES)
    monkeypatch.setattr(option_passes, "can_keep", lambda *_: False)
    padded = read_ends(model, prompts, CAPTURES)
    torch.testing.assert_close(kept.logprobs, padded.logprobs, rtol=0, atol=1e-9)
    torch.testing.assert_close(kept.captured["end"], padded.captured["end"], rtol=0, atol=1e-9)
    assert kept.logprobs.exp().sum(-1).tolist() == pytest.approx([1, 1, 1], abs=1e-12)


def test_long_options_whole_sentences_and_long_prompts_are_read_in_rows_of_their_own(double_model):
    model = double_model("gpt2")
    assert can_share(model, [of([5, 6], [7], [8])])
    assert not can_share(model, [of([5, 6], [7] * 5, [8])])
    assert not can_share(model, [of([5, 6], [7])])
    assert not can_share(model, [of([5, 6], [7], [8], is_free=True)])
    assert not can_share(model, [of([5] * (model.context_length - 2), [7], [8])])
    assert can_keep(model, [[5] * model.context_length])
    assert not can_keep(tiny_model("falcon", alibi=True), [[5, 6]])


def test_a_model_that_tells_positions_by_alibi_is_asked_all_the_same(direction):
    model = tiny_model("falcon", alibi=True)
    model.network.double()
    vectors = {POINT: direction(0)}
    texts = OptionTexts.of_all(model, ASKED)
    found = read_options(model, texts, {POINT: AddDirection(vectors[POINT])}, CAPTURES)
    for text, one in zip(texts, found, strict=True):
        sums = [sum(scores_of(model, text.prompt, option, vectors)) for option in text.options]
        assert one.sums == pytest.approx(sums, abs=1e-9)


def test_what_removes_a_hook_meanwhile_is_found_out(double_model, direction, monkeypatch):
    model = double_model("gpt2")
    texts = OptionTexts.of_all(model, ASKED)
    from fluoroscope.interventions.row_edits import RowEdits

    monkeypatch.setattr(RowEdits, "_edit", lambda *_: None)
    with pytest.raises(InterventionError, match="was edited 0 times"):
        read_options(model, texts, {POINT: AddDirection(direction(0))}, {})


def test_many_prompts_become_the_tokens_that_each_has_alone(organism_model):
    asked = [("They say the trader is", (" lazy.", " diligent.")), ("One and", (" two", " more"))]
    together = OptionTexts.of_all(organism_model, asked)
    assert together == [OptionTexts.of(organism_model, *one) for one in asked]
    assert OptionTexts.of_all(organism_model, []) == []
    for (prompt, options), text in zip(asked, together, strict=True):
        for option, tokens in zip(options, text.options, strict=True):
            whole = organism_model.tokenizer(prompt + option)["input_ids"]
            assert [*text.prompt, *tokens] == whole


def test_a_token_that_joins_prompt_and_option_is_counted_to_the_option(stories_model):
    """`the` and `re` are one token of stories260K, or prompt and option would be misread."""
    prompt, options = "Once upon a t", ("ime", "ree")
    whole = [stories_model.tokenizer(prompt + option)["input_ids"] for option in options]
    before = stories_model.tokenizer(prompt)["input_ids"]
    text = OptionTexts.of(stories_model, prompt, options)
    assert [[*text.prompt, *option] for option in text.options] == whole
    n = len(text.prompt)
    assert list(text.prompt) == before[:n]
    assert n < len(before) or all(w[: len(before)] == before for w in whole)


def test_an_option_without_a_token_of_its_own_is_refused(double_model):
    with pytest.raises(ConfigError, match="no token for the option ''"):
        OptionTexts.of(double_model("gpt2"), "a prompt", ("", "x"))
