"""A slot network is a LanguageModel on its steps: read, written, patched, asked, and kept."""

import shutil

import pytest
import torch
from tiny_reasoners import DECODER, REASONERS, SIZES, stops_apart, tiny_network

from fluoroscope.activations.capture import capture
from fluoroscope.activations.last_positions import last_activations
from fluoroscope.activations.stream import ActivationStream, rows_in_order
from fluoroscope.core.errors import (
    ConfigError,
    InterventionError,
    MismatchError,
    ModelError,
    NumericsError,
)
from fluoroscope.core.seeding import stream, torch_stream
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.data.questions.tokenizer import trained_tokenizer
from fluoroscope.interventions.edits import AddDirection, Replace
from fluoroscope.interventions.positions import (
    ALL,
    GENERATED,
    LAST,
    PROMPT,
    Positions,
    after,
    at,
    slots,
)
from fluoroscope.interventions.row_edits import row_edits
from fluoroscope.interventions.steering import steer
from fluoroscope.interventions.vectors import mean_difference
from fluoroscope.models.generation import Capture, Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.latent_edits import ReconstructionOnly, ScaleLatent, SetLatent
from fluoroscope.sae.relu import ReLUConfig
from fluoroscope.sae.training import Rows, SAETrainer, SAEVariant
from fluoroscope.sae.training_config import TrainingConfig
from fluoroscope.studies.connection.language_model import SlotLanguageModel
from fluoroscope.studies.connection.network.decoding import answer
from fluoroscope.studies.connection.network.slot_network import SlotNetwork
from fluoroscope.studies.connection.slot_source import SlotSource

WORDS = "ant bee cat dog eel fox gnu hen ibis jay koi lark mole newt"
TOKENIZER = trained_tokenizer([WORDS], "words", SIZES["vocab_size"])
THINKING = [
    name
    for name, make in REASONERS.items()
    if isinstance(network := make(), SlotNetwork) and network.max_steps
]
GREEDY = Sampling(temperature=0)
N_SLOTS, N_STEPS = 5, 4


def some_texts(n=6, seed=0):
    """Of one word to ten."""
    draws = stream(seed, "words")
    return [" ".join(draws.choice(WORDS.split(), int(draws.integers(1, 11)))) for _ in range(n)]


TEXTS = some_texts()


def opened(network=None, **settings) -> SlotLanguageModel:
    network = tiny_network(output=DECODER, **settings) if network is None else network
    return SlotLanguageModel.of(network, TOKENIZER, name="slots")


def points_of(model, streams=("resid_pre", "attn_out", "resid_post")):
    return [HookPoint(layer, each) for layer in range(model.n_layers) for each in streams]


def streams_of(model):
    return ("resid_pre", "attn_out", *(() if "mlp_out" in model.family.missing else ("mlp_out",)))


def vector(seed=0, width=SIZES["d_model"]):
    return torch.randn(width, generator=torch_stream(seed, "a direction"))


@pytest.fixture(scope="module")
def stopping():
    """Some of its texts stop before the last step, and not all of them."""
    model = opened(stops_apart("relative", output=DECODER, step="gated"))
    n_steps = model.think(*model.tokenize(TEXTS)).thought.n_steps
    assert 0 < int((n_steps < N_STEPS).sum()) < len(TEXTS)
    return model


@pytest.mark.parametrize("name", THINKING)
@torch.no_grad()
def test_what_is_read_at_the_steps_are_the_states_of_the_thought(name):
    network = REASONERS[name]()
    model = opened(network)
    tokens, mask = model.tokenize(TEXTS)
    states = list(network.think(tokens, mask.bool()).states)
    # Alone the network ends when all texts have stopped.
    states += states[-1:] * (model.n_layers + 1 - len(states))
    cache = capture(model, tokens, points_of(model), mask)
    assert model.n_layers == network.max_steps
    for layer in range(model.n_layers):
        assert torch.equal(cache[f"{layer}.resid_pre"], states[layer])
        assert torch.equal(cache[f"{layer}.resid_post"], states[layer + 1])
        assert cache[f"{layer}.attn_out"].shape == (len(TEXTS), model.n_slots, model.d_model)


@pytest.mark.parametrize("step", ["relu_norm", "gated"])
@torch.no_grad()
def test_the_streams_of_a_step_add_up_as_its_family_says(step):
    model = opened(step=step)
    network = model.slot_network
    streams = (*streams_of(model), "resid_post")
    cache = capture(model, model.tokenize(TEXTS)[0], points_of(model, streams))
    for layer in range(N_STEPS):
        x, a = cache[f"{layer}.resid_pre"], cache[f"{layer}.attn_out"]
        if step == "gated":
            recalled = network.step.recall * network.step.first_norm(cache["0.resid_pre"])
            total = network.step.norm(x + a + cache[f"{layer}.mlp_out"] + recalled)
        else:
            assert a.min() == 0
            total = network.step.norms[layer](x + a)
        torch.testing.assert_close(cache[f"{layer}.resid_post"], total)


@pytest.mark.parametrize("name", THINKING)
@torch.no_grad()
def test_what_is_written_back_as_it_was_changes_no_bit(name):
    model = opened(REASONERS[name]())
    batch = model.tokenize(TEXTS)
    points = points_of(model, (*streams_of(model), "resid_post"))
    before = model.forward(*batch)
    with model.hooked(dict.fromkeys(points, torch.clone)):
        assert torch.equal(model.forward(*batch), before)
    nothing = AddDirection(vector(), 0.0)
    with steer(model, dict.fromkeys(points, nothing)) as edits:
        assert torch.equal(model.forward(*batch), before)
    assert int(edits.n_applied) == len(TEXTS) * model.n_slots * len(points)


@pytest.mark.parametrize("stream_name", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
@torch.no_grad()
def test_an_edit_changes_later_steps_and_no_earlier_one(stream_name):
    model = opened(step="gated")
    tokens, mask = model.tokenize(TEXTS)
    posts = points_of(model, ("resid_post",))
    point, edit = HookPoint(2, stream_name), AddDirection(vector(), 3.0)
    plain = capture(model, tokens, [*posts, point], mask)
    logits = model.forward(tokens, mask)
    with steer(model, {point: edit}):
        edited = capture(model, tokens, [*posts, point], mask)
        assert (model.forward(tokens, mask) != logits).flatten(1).any(dim=1).all()
    torch.testing.assert_close(edited[point], plain[point] + 3 * vector())
    for layer, post in enumerate(posts):
        is_same = (edited[post] == plain[post]).flatten(1).all(dim=1)
        assert is_same.all() if layer < 2 else not is_same.any()


@torch.no_grad()
def test_an_edit_of_some_slots_leaves_the_others_of_its_step_alone():
    model = opened()
    tokens, mask = model.tokenize(TEXTS)
    point = HookPoint("1.resid_post")
    plain = capture(model, tokens, [point], mask)[point]
    with steer(model, {point: Replace(vector())}, slots([3, 1])) as edits:
        edited = capture(model, tokens, [point], mask)[point]
    assert torch.equal(edited[:, [0, 2, 4]], plain[:, [0, 2, 4]])
    torch.testing.assert_close(edited[:, [1, 3]], vector().expand(len(TEXTS), 2, -1))
    assert int(edits.n_applied) == 2 * len(TEXTS)


@torch.no_grad()
def test_states_of_another_text_bring_its_answer():
    model = opened()
    tokens, mask = model.tokenize(TEXTS)
    mixed = torch.tensor([1, 2, 3, 4, 5, 0])
    logits = model.forward(tokens, mask)
    for point in ("0.resid_pre", "2.resid_pre", "3.resid_post"):
        states = capture(model, tokens, [point], mask)[point]
        with model.hooked({HookPoint(point): lambda _, found=states: found}):
            assert torch.equal(model.forward(tokens, mask), logits)
        with model.hooked({HookPoint(point): lambda _, found=states: found[mixed]}):
            torch.testing.assert_close(model.forward(tokens, mask), logits[mixed])


@torch.no_grad()
def test_hooks_are_called_for_all_texts_in_each_step_also_once_all_have_stopped():
    model = opened(stops_apart("relative", output=DECODER, step="gated"))
    model.slot_network.halting.threshold = 1e9
    batch, seen = model.tokenize(TEXTS), []
    assert model.think(*batch).thought.n_steps.tolist() == [1] * len(TEXTS)
    points = points_of(model, ("attn_out", "resid_post"))
    with model.hooked({point: lambda x: seen.append(x.shape) for point in points}):
        model.forward(*batch)
    assert seen == [(len(TEXTS), N_SLOTS, SIZES["d_model"])] * 2 * N_STEPS


@torch.no_grad()
def test_a_text_that_has_stopped_keeps_what_was_written_into_it_and_is_not_woken(stopping):
    tokens, mask = stopping.tokenize(TEXTS)
    plain = stopping.think(tokens, mask).thought
    last = N_STEPS - 1
    has_stopped = plain.n_steps < N_STEPS
    with steer(stopping, {f"{last}.attn_out": AddDirection(vector(), 9.0)}) as edits:
        heard = stopping.think(tokens, mask)
    moved = (heard.thought.states[-1] != plain.states[-1]).flatten(1).any(dim=1)
    assert torch.equal(moved, ~has_stopped)
    assert heard.n_edits == [N_SLOTS] * len(TEXTS)
    assert int(edits.n_applied) == N_SLOTS * len(TEXTS)
    first = int(plain.n_steps.min())
    is_done = plain.n_steps == first
    for point in (f"{first}.resid_pre", f"{first}.resid_post"):
        with steer(stopping, {point: AddDirection(vector(), 9.0)}):
            edited = stopping.think(tokens, mask).thought
        assert torch.equal(edited.n_steps[is_done], plain.n_steps[is_done])
        expected = plain.states[-1][is_done] + 9 * vector()
        for states in edited.states[first + 1 :]:
            torch.testing.assert_close(states[is_done], expected)


@torch.no_grad()
def test_whether_a_text_goes_on_is_decided_by_its_states_as_they_were_edited(stopping):
    tokens, mask = stopping.tokenize(TEXTS)
    before = capture(stopping, tokens, ["0.resid_pre"], mask)["0.resid_pre"]
    with stopping.hooked({HookPoint("0.resid_post"): lambda _: before}):
        thought = stopping.think(tokens, mask).thought
    assert not thought.changes[0].any()
    assert thought.n_steps.tolist() == [1] * len(TEXTS)


def test_streams_that_are_not_there_say_why():
    model = opened()
    tokens = model.tokenize(TEXTS)[0]
    for point, message in [
        ("1.mlp_out", r"no 1\.mlp_out: step=relu_norm has no feed-forward part, as step=gated"),
        ("0.embed", r"no 0\.embed: what is embedded are the tokens .* positions are slots"),
        ("4.resid_post", r"no hook point 4\.resid_post: its layers are 0 to 3"),
    ]:
        with pytest.raises(ModelError, match=message):
            capture(model, tokens, [point])
    still = opened(max_steps=0)
    assert still.forward(tokens).shape == (len(TEXTS), 1, SIZES["vocab_size"])
    with pytest.raises(ModelError, match=r"no hook point 0\.resid_pre: it has no layers"):
        capture(still, tokens, ["0.resid_pre"])


@pytest.mark.parametrize(
    "positions", [LAST, PROMPT, GENERATED, at([0, -1]), after("ant"), ALL | LAST]
)
def test_positions_of_tokens_are_refused_and_both_are_named(positions):
    part = str(positions).rpartition(" | ")[2].replace("(", r"\(").replace(")", r"\)")
    message = rf"{part} names tokens of a text, and the positions of slots are its 5 slots"
    with (
        pytest.raises(InterventionError, match=message),
        steer(opened(), {"1.resid_post": AddDirection(vector())}, positions),
    ):
        pass


def test_slots_are_refused_where_positions_are_tokens_and_where_there_are_not_so_many():
    for model, message in [
        (opened(), r"slots\(0,5\) names slot 5, and slots has the slots 0 to 4"),
        (tiny_model("gpt2"), r"slots\(0,5\) names slots, and the positions of tiny-gpt2-0 are the"),
    ]:
        edits = {"1.resid_post": AddDirection(vector(width=model.d_model))}
        with pytest.raises(InterventionError, match=message), steer(model, edits, slots([0, 5])):
            pass
    with pytest.raises(InterventionError, match=r"counted from 0; got \[-1\]"):
        slots([-1])
    assert Positions.parse(str(slots([0, 3]) | ALL)) == slots([0, 3]) | ALL
    with pytest.raises(InterventionError, match=r"Write positions as slots\(0,1\)"):
        Positions.parse("slots(x)")


def test_whatever_goes_by_tokens_is_refused():
    model = opened()
    for asks in (
        lambda: last_activations(model, TEXTS, [HookPoint("1.resid_post")]),
        lambda: mean_difference(model, TEXTS, TEXTS, [HookPoint("1.resid_post")]),
        lambda: generate(model, TEXTS, captures={"a": Capture(HookPoint("1.resid_post"), "max")}),
    ):
        with pytest.raises(ModelError, match=r"the positions of slots are its 5 slots"):
            asks()

    class OfTokens:
        pass

    with (
        pytest.raises(InterventionError, match="OfTokens goes by the tokens"),
        model.intervened(OfTokens()),
    ):
        pass
    batch = model.tokenize(TEXTS)
    for asks in (model.token_scores, model.loss):
        with pytest.raises(ModelError, match=r"no scores of a text's own tokens.*answer_scores"):
            asks(*batch)


@torch.no_grad()
def test_edits_of_a_pass_that_was_not_announced_are_found_out():
    model = opened()
    tokens, mask = model.tokenize(TEXTS)
    with steer(model, {"1.resid_post": AddDirection(vector())}) as edits:
        with pytest.raises(InterventionError, match="not announced"):
            model.slot_network.think(tokens, mask.bool())
        model.forward(tokens, mask)
    assert int(edits.n_applied) == len(TEXTS) * N_SLOTS


@torch.no_grad()
def test_padding_on_either_side_and_batch_mates_change_nothing():
    model = opened(
        tiny_network(output={**DECODER, "reads_tokens": True}, n_source_layers=1).double()
    )
    left, right = (model.tokenize(TEXTS, padding_side=side) for side in ("left", "right"))
    logits = model.forward(*right)
    assert torch.equal(model.forward(*left), logits)
    for row, text in enumerate(TEXTS):
        alone = model.forward(*model.tokenize([text]))
        torch.testing.assert_close(alone[0], logits[row], atol=1e-9, rtol=1e-9)
    with pytest.raises(ModelError, match="Row 1 of the tokens is padding and nothing else"):
        model.forward(torch.ones(2, 3, dtype=torch.int64), torch.tensor([[1, 1, 0], [0, 0, 0]]))
    with pytest.raises(ModelError, match="at most 12 positions, got 13"):
        model.forward(torch.ones(1, 13, dtype=torch.int64))


@pytest.mark.parametrize("name", ["with a decoder", "the plan's", "stops by its change"])
@torch.no_grad()
def test_texts_are_answered_as_the_network_answers_them(name):
    network = REASONERS[name]()
    model = opened(network)
    tokens, mask = model.tokenize(TEXTS, padding_side="right")
    words = TOKENIZER.encode(TEXTS)
    assert [row[kept].tolist() for row, kept in zip(tokens, mask.bool(), strict=True)] == [
        [*ids, TOKENIZER.eos_id] for ids in words
    ]
    said = answer(network, tokens, mask.bool(), SIZES["max_target"], TOKENIZER.eos_id)
    texts = generate(model, TEXTS, sampling=GREEDY, logprobs=True)
    for row, text in enumerate(texts):
        n = int(said.lengths[row])
        assert text.tokens == tuple(said.ids[row, :n].tolist())
        assert text.text == TOKENIZER.decode(text.tokens)
        ended = text.tokens[-1] == TOKENIZER.eos_id
        assert text.finish == ("stop_token" if ended else "context")
        assert text.n_prompt == int(mask[row].sum())
        scores = model.answer_scores(
            *model.tokenize(TEXTS[row : row + 1]), said.ids[row : row + 1, :n]
        )
        torch.testing.assert_close(scores[0], torch.tensor(text.logprobs, dtype=scores.dtype))


def test_an_answer_depends_on_its_own_seed_and_limits_alone():
    model = opened(tiny_network(output=DECODER).double())
    requests = [Request(prompt=text, seed=i, max_tokens=1 + i % 4) for i, text in enumerate(TEXTS)]
    together = generate(model, requests)
    few = generate(model, requests, max_rows=2)
    backwards = generate(model, requests[::-1], max_rows=4)[::-1]
    assert [one.tokens for one in together] == [one.tokens for one in few]
    assert [one.tokens for one in together] == [one.tokens for one in backwards]
    assert [one.request for one in few] == list(range(len(TEXTS)))
    assert all(len(one.tokens) <= 1 + i % 4 for i, one in enumerate(together))
    assert {one.finish for one in together} <= {"length", "stop_token"}
    longer = generate(model, [Request(prompt=TEXTS[0], stop_tokens=())], sampling=GREEDY)[0]
    second = longer.text.split()[1]
    cut = generate(
        model, [Request(prompt=TEXTS[0], stop_tokens=(), stop=(second,))], sampling=GREEDY
    )
    assert cut[0].finish == "stop_string"
    assert cut[0].text == longer.text[: longer.text.find(second)]
    with pytest.raises(ModelError, match="has 13 tokens, and slots reads at most 12"):
        generate(model, [" ".join(WORDS.split()[:12])])


def test_logits_that_are_no_numbers_are_no_answer():
    model = opened()
    with (
        model.hooked({HookPoint("3.resid_post"): lambda x: x * float("nan")}),
        pytest.raises(
            NumericsError, match="request 0 are NaN or infinite at token 0 of its answer"
        ),
    ):
        generate(model, TEXTS)


def test_edits_hold_while_answers_are_written_and_each_request_has_its_own():
    model = opened()
    plain = generate(model, TEXTS, sampling=GREEDY, logprobs=True)
    edit = {"3.resid_post": AddDirection(vector(), 20.0)}
    with steer(model, edit, slots([0, 2])):
        steered = generate(model, TEXTS, sampling=GREEDY, logprobs=True, max_rows=4)
    assert [one.n_edits for one in steered] == [2] * len(TEXTS)
    assert all(a.logprobs != b.logprobs for a, b in zip(plain, steered, strict=True))
    rows = [edit if i % 2 else {} for i in range(len(TEXTS))]
    with row_edits(model, rows, slots([0, 2])):
        mixed = generate(model, TEXTS, sampling=GREEDY, logprobs=True, max_rows=4)
    for i, one in enumerate(mixed):
        assert one.n_edits == 2 * (i % 2)
        assert one.tokens == (steered if i % 2 else plain)[i].tokens


@torch.no_grad()
def test_scores_of_answers_are_those_of_the_tokens_in_turn():
    model = opened()
    texts = model.tokenize(TEXTS)
    answers, mask = model.tokenize(["ant bee cat", "dog", *["eel fox"] * 4], padding_side="right")
    scores = model.answer_scores(*texts, answers, mask)
    assert not scores[mask == 0].any()
    for t in range(answers.shape[1]):
        target_in = torch.cat([torch.zeros_like(answers[:, :1]), answers[:, :t]], dim=1)
        by_hand = model.forward(*texts, target_in)[:, t].log_softmax(dim=-1)
        wanted = by_hand.gather(1, answers[:, t, None])[:, 0] * mask[:, t]
        torch.testing.assert_close(scores[:, t], wanted)
    front = model.tokenize(["ant bee cat", "dog", *["eel fox"] * 4], padding_side="left")
    same = model.answer_scores(*texts, *front)
    torch.testing.assert_close(same[front.attention_mask > 0], scores[mask > 0])
    assert not same[front.attention_mask == 0].any()


def test_gradients_reach_a_hook():
    model = opened()
    direction = torch.zeros(model.d_model, requires_grad=True)
    with model.hooked({HookPoint("1.attn_out"): lambda x: x + direction}):
        model.forward(*model.tokenize(TEXTS)).logsumexp(dim=-1).sum().backward()
    assert direction.grad.abs().sum() > 0


def trained_sae(model, point):
    source = SlotSource(model, some_texts(60, seed=2), chunk_texts=16)
    assert source.chunk_rows.tolist() == [80, 80, 80, 60]
    rows = torch.cat([batch[point] for batch in rows_in_order(source, [point], 50)])
    assert len(rows) == 300
    batches = ActivationStream(source, [point], batch_size=50, seed=0, n_samples=2000)
    variant = SAEVariant("a", point, "relu", ReLUConfig(d_model=model.d_model, d_sae=24), 0)
    trainer = SAETrainer(
        [variant], batches, {point: Rows(rows[:200], rows[200:])}, TrainingConfig(batch_size=50), 40
    )
    sae = trainer.train()["a"].last
    sae.hook_point = point
    return sae


def test_an_sae_of_a_step_is_trained_and_a_latents_own_value_changes_nothing():
    model, point = opened(step="gated"), HookPoint("1.resid_post")
    sae = trained_sae(model, point)
    tokens, mask = model.tokenize(TEXTS)
    states = capture(model, tokens, [point], mask)[point]
    latents = sae.encode(states).detach()
    before = model.forward(tokens, mask).detach()
    slot = 2
    chosen = [int(j) for j in latents[:, slot].argmax(dim=-1)]
    own = [float(latents[row, slot, j]) for row, j in enumerate(chosen)]
    assert min(own) > 0

    def logits_with(edits, positions):
        with torch.no_grad(), row_edits(model, [{point: edit} for edit in edits], positions):
            return model.forward(tokens, mask)

    same = [SetLatent(sae, j, value) for j, value in zip(chosen, own, strict=True)]
    torch.testing.assert_close(logits_with(same, slots([slot])), before, atol=1e-5, rtol=1e-5)
    kept = [ScaleLatent(sae, j, 1.0) for j in chosen]
    assert torch.equal(logits_with(kept, ALL), before)
    more = [SetLatent(sae, j, value + 5) for j, value in zip(chosen, own, strict=True)]
    rebuilt = [ReconstructionOnly(sae)] * len(TEXTS)
    for edits, positions in ((more, slots([slot])), (rebuilt, ALL)):
        changes = logits_with(edits, positions) - before
        assert changes.abs().amax(dim=(1, 2)).min() > 1e-3
    with (
        pytest.raises(MismatchError, match=r"SAE of 1\.resid_post, and was to be applied at 2"),
        steer(model, {"2.resid_post": SetLatent(sae, 0, 1.0)}),
    ):
        pass


@pytest.mark.parametrize("name", ["with a decoder", "learned when to stop", "the plan's"])
@torch.no_grad()
def test_what_is_saved_opens_again_as_the_same_model(name, tmp_path):
    model = opened(REASONERS[name]())
    model.save(tmp_path / "kept")
    again = SlotLanguageModel.load(str(tmp_path / "kept"))
    batch = model.tokenize(TEXTS)
    assert torch.equal(again.tokenize(TEXTS).tokens, batch.tokens)
    assert torch.equal(again.forward(*batch), model.forward(*batch))
    assert again.identity == model.identity
    assert not any(each.requires_grad for each in again.network.parameters())
    files = {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert {name.rpartition(".")[2] for name in files} <= {"json", "safetensors"}
    exact = SlotLanguageModel.load(str(tmp_path / "kept"), dtype="float64")
    assert exact.dtype == torch.float64
    assert exact.identity == model.identity
    torch.testing.assert_close(exact.forward(*batch).float(), model.forward(*batch))


def test_weights_settings_and_tokenizers_of_others_are_refused_by_name(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    opened().save(one)
    SlotLanguageModel.of(tiny_network(7, output=DECODER), TOKENIZER, name="stranger").save(other)
    weights = (one / "model.safetensors").read_bytes()
    shutil.copy(other / "model.safetensors", one / "model.safetensors")
    with pytest.raises(MismatchError, match=r"weights of stranger .* beside it is of slots"):
        SlotLanguageModel.load(str(one))
    tensors = read_tensors(other / "model.safetensors")
    write_tensors(one / "model.safetensors", dict(list(tensors.items())[1:]))
    with pytest.raises(MismatchError, match="weights of an unnamed network"):
        SlotLanguageModel.load(str(one))
    (one / "model.safetensors").write_bytes(weights)
    backwards = trained_tokenizer([WORDS, "newt"], "words", SIZES["vocab_size"])
    backwards.save(one / "tokenizer")
    with pytest.raises(MismatchError, match=r"cuts text otherwise .* the tokenizer of slots"):
        SlotLanguageModel.load(str(one))
    settings = (other / "config.json").read_text(encoding="utf-8")
    (one / "config.json").write_text(settings.replace('"n_slots"', '"n_slot"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="n_slot"):
        SlotLanguageModel.load(str(one))
    with pytest.raises(ModelError, match=r"settings of a slot_network.*it is none"):
        SlotLanguageModel.load(str(tmp_path))
    with pytest.raises(ModelError, match="have no revision; got 'main'"):
        SlotLanguageModel.load(str(other), revision="main")
    with pytest.raises(ModelError, match="architecture 'slot_network', which cannot be read"):
        LanguageModel.load(str(other))


def test_a_model_says_which_network_it_needs():
    stranger = trained_tokenizer(["ant bee"], "words", 9)
    with pytest.raises(ModelError, match="has 17 tokens and pads with 0, its tokenizer has 5"):
        SlotLanguageModel.of(tiny_network(output=DECODER), stranger, name="slots")
    gpt2 = tiny_model("gpt2")
    with pytest.raises(ModelError, match=r"gpt2 is a GPT2LMHeadModel\. Use LanguageModel"):
        SlotLanguageModel.from_network(gpt2.network, gpt2.tokenizer, name="gpt2")


@torch.no_grad()
def test_a_number_of_steps_can_be_asked_for_and_is_part_of_what_the_model_is(tmp_path, stopping):
    network = stopping.slot_network
    deep = SlotLanguageModel.of(network, TOKENIZER, name="slots", n_steps=7)
    tokens, mask = deep.tokenize(TEXTS)
    states = network.think(tokens, mask.bool(), 7).states
    assert deep.n_layers == 7
    assert torch.equal(capture(deep, tokens, ["6.resid_post"], mask)["6.resid_post"], states[-1])
    assert deep.identity != stopping.identity
    deep.save(tmp_path)
    assert SlotLanguageModel.load(str(tmp_path)).identity == deep.identity
    with pytest.raises(ModelError, match="norm for each of its 4 steps, so 5 cannot be done"):
        SlotLanguageModel.of(tiny_network(output=DECODER), TOKENIZER, name="slots", n_steps=5)
    with pytest.raises(ModelError, match=r"whole number from 1, .* got 0"):
        SlotLanguageModel.of(network, TOKENIZER, name="slots", n_steps=0)
