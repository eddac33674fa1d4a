"""What tokens add to a text, and which of them may end it."""

import pytest
import torch

from fluoroscope.models.stopping import StopRule, StopTable, continuation
from fluoroscope.models.tiny import tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


@pytest.mark.parametrize("text", [" there was", "!there", " 界 a", "界!", "\n\nShe", ", and"])
@pytest.mark.parametrize("prompt", ["Once upon a time", "The 世", "a", "a\n", "“"])
def test_no_space_and_no_byte_is_lost_between_prompt_and_text(stories_model, prompt, text):
    tokenizer = stories_model.tokenizer
    start, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + text)["input_ids"]
    assert whole[: len(start)] == start
    assert continuation(tokenizer, start, whole[len(start) :]) == text


def test_a_character_may_begin_in_the_prompt_and_end_in_the_text(model):
    whole = model.tokenizer("a世b")["input_ids"]
    start, rest = whole[:4], whole[4:]
    # What the prompt shows of it is not known, so the text is not wrong for the rest of it.
    assert continuation(model.tokenizer, start, rest).endswith("b")


def test_stop_strings_are_found_in_a_vocabulary_with_holes():
    # The highest token is above the number of tokens, and there is no token 0.
    model = tiny_model("llama", vocab_size=400)

    class Sparse(type(model.tokenizer)):
        """Tokens 0 to 3 are unknown, and the bytes stand from 104 on."""

        def get_vocab(self):
            return {name: i + 100 for name, i in super().get_vocab().items() if i > 3}

        def __len__(self):
            return 256

        def decode(self, token_ids, **settings):
            moved = [token - 100 for token in token_ids if token >= 104]
            return super().decode(moved, **settings)

    tokenizer = Sparse(tokenizer_object=model.tokenizer.backend_tokenizer)
    rule = StopRule((" a", "b"), ())
    table = StopTable(tokenizer, 400, [rule], torch.device("cpu"))
    found = table.may_complete[table.number(rule)].nonzero().flatten().tolist()
    expected = {tokenizer.decode([token]) for token in found}
    assert {"a", "b"} <= expected
    assert expected <= {"a", "b", "\N{REPLACEMENT CHARACTER}"}
    # Every byte that is not ASCII may be the end of a character.
    assert len(found) == 2 + 128


@pytest.mark.parametrize("end", [" ", ".", "\n", "ç"])
def test_every_token_that_completes_a_string_is_looked_at(stories_model, end):
    tokenizer = stories_model.tokenizer
    rule = StopRule((f"x{end}",), ())
    table = StopTable(tokenizer, 512, [rule], torch.device("cpu"))
    may_complete = table.may_complete[table.number(rule)]
    start = tuple(tokenizer("some text")["input_ids"])
    for token in range(3, 512):
        if end in continuation(tokenizer, start, [token]):
            assert may_complete[token], tokenizer.convert_ids_to_tokens(token)
    assert int(may_complete.sum()) < 450


def test_rules_that_differ_before_their_last_character_share_a_row(model):
    rules = [StopRule((f"{i}\n", "b"), (2,)) for i in range(50)] + [StopRule((), (2, 3))]
    table = StopTable(model.tokenizer, 260, rules, torch.device("cpu"))
    assert table.may_complete.shape == (2, 260)
    assert table.is_stop_token[table.number(rules[7])].nonzero().flatten().tolist() == [2]
    assert table.is_stop_token[table.number(rules[50])].nonzero().flatten().tolist() == [2, 3]
    assert table.cut(rules[7], "a 7\n") == 2
    assert table.cut(rules[8], "a 7\n") is None
    assert table.cut(rules[7], "a 7\n7\n") == 2
