"""Exact effects are what whole passes and many samples say."""

import pytest
import torch
from scipy.stats import chi2

from fluoroscope.core.errors import InterventionError, MismatchError, ModelError, NumericsError
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.positions import GENERATED, LAST, PROMPT, at
from fluoroscope.interventions.row_edits import row_edits
from fluoroscope.interventions.screening import Screen
from fluoroscope.interventions.steering import steer
from fluoroscope.interventions.term_table import Placed
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.latent_edits import ReconstructionOnly, ScaleLatent, SetLatent, latent_block

DECODERS = [name for name, family in FAMILIES.items() if family.kind == "decoder"]
PROMPT_TEXT = "some text to go on from"


def edits_of(sae, direction):
    return [
        {"1.resid_post": SetLatent(sae, 3, 2.5)},
        {"2.resid_post": SetLatent(sae, 4, 1.0), "0.mlp_out": AddDirection(direction(0))},
        {},
        {"0.resid_pre": AddDirection(direction(1), 0.5)},
        {"1.attn_out": ScaleLatent(sae, 7, 3.0)},
        {"2.resid_post": ReconstructionOnly(sae)},
        {"0.embed": AddDirection(direction(2), 0.1)},
    ]


@pytest.mark.parametrize("family", DECODERS)
def test_exact_screening_is_a_pass_over_the_whole_prompt(
    family, double_model, double_sae, direction
):
    model = double_model(family)
    tokens, _ = model.tokenize([PROMPT_TEXT])
    screen = Screen(model, PROMPT_TEXT)
    edits = edits_of(double_sae(), direction)
    found = screen.next_tokens(edits)
    for row, edit in zip(found, edits, strict=True):
        with row_edits(model, [edit], LAST):
            whole = model.forward(tokens)[0, -1].detach()
        torch.testing.assert_close(row, whole.softmax(-1), atol=1e-9, rtol=0)
    torch.testing.assert_close(found[2], screen.baseline, atol=1e-9, rtol=0)
    # Nothing of the screen is left on the network.
    torch.testing.assert_close(model.forward(tokens)[0, -1].softmax(-1), screen.baseline)


def test_a_block_of_latents_is_the_same_edits_one_by_one(double_model, double_sae):
    model, sae, point = double_model("gemma2"), double_sae(), HookPoint("1.resid_post")
    screen = Screen(model, PROMPT_TEXT)
    latents = torch.arange(1500) % sae.d_sae
    values = torch.linspace(0, 5, 1500, dtype=torch.float64)
    block = latent_block(sae, point, latents, values)
    # More rows than one pass takes.
    found = screen.decisions(block, {"few": [3, 4], "many": range(10, 90)})
    chosen = [0, 7, 1100, 1499]
    some = [{point: SetLatent(sae, int(latents[i]), float(values[i]))} for i in chosen]
    each = screen.next_tokens(some)
    torch.testing.assert_close(found["few"][chosen], each[:, 3:5].sum(-1), atol=1e-9, rtol=0)
    torch.testing.assert_close(found["many"][chosen], each[:, 10:90].sum(-1), atol=1e-9, rtol=0)


def test_exact_probabilities_are_the_frequencies_of_twenty_thousand_samples(
    double_model, double_sae
):
    model = double_model("llama")
    edit = {"1.resid_post": SetLatent(double_sae(), 3, 6.0)}
    sampling = Sampling(temperature=0.7, top_k=60)
    exact = Screen(model, PROMPT_TEXT, sampling).next_tokens([edit])[0]
    n = 20_000
    requests = [Request(prompt=PROMPT_TEXT, seed=i, max_tokens=1) for i in range(n)]
    with steer(model, edit, LAST):
        found = generate(model, requests, sampling=sampling, max_rows=4096)
    counts = torch.bincount(torch.tensor([one.tokens[0] for one in found]), minlength=len(exact))
    assert g_test(counts, exact) > 0.001
    # The test is sharp enough to tell the unedited distribution from this one.
    assert g_test(counts, Screen(model, PROMPT_TEXT, sampling).baseline) < 1e-6


def g_test(counts, shares) -> float:
    """p of the likelihood-ratio test; rare tokens are one class."""
    n = counts.sum()
    assert not counts[shares == 0].any() or shares.min() == 0
    often = shares * n >= 5
    observed = torch.cat([counts[often], counts[~often].sum()[None]]).double()
    expected = torch.cat([shares[often], shares[~often].sum()[None]]) * n
    if expected[-1] < 1e-9:
        if observed[-1] > 0:
            return 0.0
        observed, expected = observed[:-1], expected[:-1]
    g = 2 * (observed * (observed / expected).log()).nan_to_num().sum()
    return float(chi2.sf(float(g), len(observed) - 1))


@pytest.mark.parametrize("positions", [LAST, LAST | GENERATED])
def test_answers_are_the_products_of_next_token_probabilities(double_model, double_sae, positions):
    model = double_model("mistral")
    edits = [{"1.resid_post": SetLatent(double_sae(), 3, 4.0)}, {}]
    # A beginning of another, a sibling, and one that stands apart; with single bytes as tokens.
    answers = ["1", "10", "100", "12", "25"]
    screen = Screen(model, PROMPT_TEXT, positions=positions)
    found = screen.answers(edits, answers)
    prompt = model.tokenizer(PROMPT_TEXT)["input_ids"]
    for row, edit in zip(found, edits, strict=True):

        def begins_with(text, edit=edit):
            tokens = [*prompt, *model.tokenizer(text)["input_ids"][1:]]
            spans = positions.spans(tuple(prompt), model.tokenizer)
            share = 1.0
            for place in range(len(prompt), len(tokens)):
                hook = {
                    HookPoint(point): lambda x, one=one: (
                        x
                        + torch.stack(
                            [
                                one.change(x[:, i])
                                if any(a <= i < b for a, b in spans)
                                else torch.zeros_like(x[:, i])
                                for i in range(x.shape[1])
                            ],
                            dim=1,
                        )
                    )
                    for point, one in edit.items()
                }
                with model.hooked(hook):
                    logits = model.forward(torch.tensor([tokens[:place]]))[0, -1].detach()
                share *= float(logits.softmax(-1)[tokens[place]])
            return share

        longer = {"1": ["10", "12"], "10": ["100"]}
        for answer, value in zip(answers, row.tolist(), strict=True):
            wanted = begins_with(answer) - sum(map(begins_with, longer.get(answer, [])))
            assert value == pytest.approx(wanted, abs=1e-9)


def test_answers_of_the_organism_are_what_its_world_says(organism_model):
    from fluoroscope import organism

    prompt = organism.load_truth().world.prompt("risk", "screen", 3)
    replies = prompt.replies()
    (found,) = Screen(organism_model, prompt.text).answers([{}], list(replies))
    assert float(found.sum()) == pytest.approx(1, abs=1e-3)
    assert found.tolist() == pytest.approx(list(replies.values()), abs=0.02)


@pytest.mark.filterwarnings("ignore:Nothing was edited")
def test_what_cannot_be_screened_says_so(double_model, double_sae, direction):
    model, sae = double_model("llama"), double_sae(point="1.resid_post")
    with pytest.raises(ModelError, match="prompt is empty"):
        Screen(model, "")
    with pytest.raises(InterventionError, match="LAST or LAST"):
        Screen(model, PROMPT_TEXT, positions=PROMPT)
    with pytest.raises(InterventionError, match="No answer"):
        Screen(model, PROMPT_TEXT).answers([{}], [])
    with pytest.raises(InterventionError, match="given twice"):
        Screen(model, PROMPT_TEXT).answers([{}], ["1", "1"])
    with (
        steer(model, {"1.resid_post": AddDirection(direction(0))}, LAST),
        pytest.raises(InterventionError, match="being edited"),
    ):
        Screen(model, PROMPT_TEXT)
    two = torch.tensor([1, 2])
    with pytest.raises(MismatchError, match=r"2\.resid_post"):
        latent_block(sae, HookPoint("2.resid_post"), two, two.double())
    with pytest.raises(InterventionError, match="no latent 40"):
        latent_block(sae, HookPoint("1.resid_post"), two + 38, two.double())
    with pytest.raises(InterventionError, match="depend on each other"):
        latent_block(double_sae("topk"), HookPoint("1.resid_post"), two, two.double())


def test_a_hook_that_is_lost_is_noticed(double_model, double_sae):
    model = double_model("llama")
    screen = Screen(model, PROMPT_TEXT)
    block = model.blocks[1]
    keep = block._forward_hooks.copy()

    class Forgetful(dict):
        """Loses every hook that is put into it."""

        def __setitem__(self, key, value):
            return None

    block._forward_hooks = Forgetful()
    with pytest.raises(InterventionError, match="did not fire"):
        screen.next_tokens([{"1.resid_post": SetLatent(double_sae(), 3, 2.5)}])
    block._forward_hooks = keep


def test_a_screen_of_a_hooked_model_is_that_of_the_hooked_model(double_model, double_sae):
    model, sae = double_model("llama"), double_sae()
    tokens, _ = model.tokenize([PROMPT_TEXT])
    edits = [{"1.resid_post": SetLatent(sae, 3, 2.5)}, {"2.resid_pre": SetLatent(sae, 4, 1.0)}]
    with model.hooked({HookPoint("1.resid_post"): lambda x: 2 * x}):
        found = Screen(model, PROMPT_TEXT).next_tokens(edits)
        for row, edit in zip(found, edits, strict=True):
            with row_edits(model, [edit], LAST):
                whole = model.forward(tokens)[0, -1].detach().softmax(-1)
            torch.testing.assert_close(row, whole, atol=1e-9, rtol=0)


def test_blocks_of_latents_in_half_precision_are_the_edits_one_by_one(double_sae):
    model, sae = tiny_model("llama"), double_sae().to(torch.bfloat16)
    model.network.to(torch.bfloat16)
    screen, point = Screen(model, PROMPT_TEXT), HookPoint("1.resid_post")
    block = latent_block(sae, point, torch.arange(40), torch.full((40,), 2.5))
    each = screen.next_tokens([{point: SetLatent(sae, j, 2.5)} for j in range(40)])
    assert torch.equal(screen.next_tokens(block), each)


def test_an_edit_that_is_too_large_is_named(double_sae):
    point, sae = HookPoint("1.resid_post"), double_sae()
    screen = Screen(tiny_model("llama"), PROMPT_TEXT)
    with pytest.raises(NumericsError, match="under edit 1 are NaN or infinite"):
        screen.next_tokens([{point: SetLatent(sae, 3, value)} for value in (1.0, 1e300)])


def test_what_would_not_be_exact_is_refused(double_model, double_sae):
    model, edit = double_model("llama"), SetLatent(double_sae(), 3, 2.5)
    screen = Screen(model, tuple([5, 6] * 31))
    for position in (0, -2):
        with pytest.raises(InterventionError, match="knows edits of the prompt's last position"):
            screen.next_tokens([{}, {"1.resid_post": Placed(edit, at([position]))}])
    assert screen.answers([{}], [(1, 2, 3)]).shape == (1, 1)
    with pytest.raises(InterventionError, match=r"4 tokens, and behind the 62 .* room for 3"):
        screen.answers([{}], [(1, 2, 3, 4), (5,)])
    for wrong in ((-1,), (1, 260)):
        with pytest.raises(InterventionError, match="has tokens 0 to 259"):
            screen.answers([{}], [wrong])
        with pytest.raises(InterventionError, match="has tokens 0 to 259"):
            screen.decisions([{}], {"wrong": wrong})
    two = torch.tensor([1, 2])
    narrow = latent_block(double_sae(d_model=8), HookPoint("1.resid_post"), two, two.double())
    with pytest.raises(MismatchError, match=r"width 8, and 1\.resid_post"):
        screen.next_tokens(narrow)
    with torch.no_grad():
        model.blocks[0].mlp.up_proj.weight.mul_(1.5)
    with pytest.raises(InterventionError, match="weights of tiny-llama-0 have changed"):
        screen.next_tokens([{}])
