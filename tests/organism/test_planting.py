"""Laws of the interchange, and of a training that is stopped and goes on."""

import shutil

import pytest
import torch

from fluoroscope.core.errors import NumericsError, UserError
from fluoroscope.core.seeding import stream
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.organism import planting
from fluoroscope.organism.encoding import Encoder
from fluoroscope.organism.network import lower, new_network, planted_directions, upper
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.readout import Readout, exchange
from fluoroscope.organism.shipping import load_truth, save_organism
from fluoroscope.organism.tokenizer import learn_tokenizer
from fluoroscope.organism.train import OrganismTrainer
from fluoroscope.organism.training_config import OrganismTraining
from fluoroscope.organism.world import World

WORLD = World()
SMALL = OrganismTraining(n_slots=4, n_groups=2, n_reviews=2, chunk=2)


@pytest.fixture(scope="module")
def readout():
    tokenizer = learn_tokenizer(WORLD)
    return Readout(new_network(tokenizer, 0).eval(), Encoder(tokenizer))


def some_prompts(n=6):
    return [WORLD.prompt(variable, "test", i) for variable in VARIABLES for i in range(n)]


def test_the_directions_are_orthonormal_and_fixed_by_the_seed():
    directions = planted_directions(0)
    torch.testing.assert_close(directions @ directions.T, torch.eye(4), atol=1e-6, rtol=0)
    assert torch.equal(directions, planted_directions(0))
    assert not torch.equal(directions, planted_directions(1))


def test_the_cut_network_is_the_whole_one(readout):
    tokens = torch.tensor([readout.encoder.prompt(WORLD.text("test", 0).text)])
    with torch.no_grad():
        whole = readout.network(tokens).logits
        cut = readout.network.lm_head(upper(readout.network, lower(readout.network, tokens)))
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)


def test_only_the_named_components_change_and_only_from_the_decision_on():
    hidden = torch.randn(3, 7, 128, generator=torch.Generator().manual_seed(0))
    directions, decision = planted_directions(0), torch.tensor([2, 6, 0])
    wanted = torch.tensor([[1.0, 2, 3, 4]]).repeat(3, 1)
    which = torch.tensor([[True, False, False, True]]).repeat(3, 1)
    changed = planting.with_components(hidden, decision, directions, wanted, which)
    before, after = hidden @ directions.T, changed @ directions.T
    for row, start in enumerate(decision.tolist()):
        assert torch.equal(changed[row, :start], hidden[row, :start])
        torch.testing.assert_close(
            after[row, start:, [0, 3]], wanted[row, [0, 3]].expand(7 - start, 2)
        )
        torch.testing.assert_close(after[row, start:, 1:3], before[row, start:, 1:3])
    rest = torch.eye(128) - directions.T @ directions
    torch.testing.assert_close(changed @ rest, hidden @ rest, atol=1e-5, rtol=1e-5)


def test_exchanging_a_prompts_own_component_changes_nothing(readout):
    prompts, directions = some_prompts(), planted_directions(0)
    own = readout.components(prompts, directions)
    plain = readout.outcomes(prompts)
    for which in range(4):
        same = readout.outcomes(prompts, exchange(own, directions, which))
        assert same == pytest.approx(plain, abs=1e-7)


def test_a_reply_is_read_out_the_same_alone_and_beside_others(readout):
    prompts = some_prompts(2)
    choices = [list(prompt.replies()) for prompt in prompts]
    together = readout.replies(prompts, choices)
    for prompt, mine, found in zip(prompts, choices, together, strict=True):
        assert readout.replies([prompt], [mine])[0] == pytest.approx(found, rel=1e-4)
    first = {t for t, p in together[0].items() if t.startswith(" Stop")}
    stop = sum(together[0][text] for text in first)
    # All replies that begin so are less than the first token alone.
    assert 0 < stop <= readout.outcomes(prompts[:1])[0] + 1e-7


def test_partners_have_the_same_variable_and_can_hold_it():
    prompts = [*some_prompts(8), *WORLD.exposures()[:50]]
    partners = planting.partners(prompts, stream(0, "test"))
    for prompt, partner in zip(prompts, partners, strict=True):
        assert prompts[partner].variable == prompt.variable
        assert planting.can_hold(prompts[partner]) or prompts[partner] is prompt


def test_what_is_exchanged_is_exact_while_the_network_computes_in_half_precision():
    hidden = 40 * torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    directions, decision = planted_directions(0), torch.tensor([1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        found = planting.components(hidden, decision, directions)
    assert found.dtype == torch.float32
    assert torch.equal(found, planting.components(hidden, decision, directions))


def test_a_training_that_diverges_is_stopped_and_says_what_to_do(monkeypatch):
    monkeypatch.setattr("fluoroscope.organism.train.METRICS_EVERY", 3)
    trainer = OrganismTrainer(SMALL.model_copy(update={"learning_rate": 1e30, "warmup": 1}))
    trainer.advance(0)
    trainer.advance(1)
    with pytest.raises(NumericsError, match=r"smaller training\.learning_rate than 1e\+30"):
        trainer.advance(2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("training.json", None, "holds no organism: it has no training.json"),
        ("training.json", "[]", "holds no settings"),
        ("training.json", '{"sed": 1}', "Did you mean 'seed'"),
        ("model.safetensors", None, "has no weights"),
        ("config.json", None, "has no config.json"),
        ("tokenizer.json", None, "has no tokenizer"),
        ("planted_directions.safetensors", None, "has no planted_directions.safetensors"),
    ],
)
def test_a_folder_that_is_no_whole_organism_is_refused(whole, tmp_path, file, content, message):
    shutil.copytree(whole, tmp_path / "model")
    if content is None:
        (tmp_path / "model" / file).unlink()
    else:
        (tmp_path / "model" / file).write_text(content)
    with pytest.raises(UserError, match=message):
        load_truth(tmp_path / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("organism") / "model"
    save_organism(OrganismTrainer(SMALL), folder)
    return folder


def trained(steps, state=None, place=None):
    trainer = OrganismTrainer(SMALL)
    if place is not None:
        trainer.load(read_state(place))
    for step in steps:
        trainer.advance(step)
    if state is not None:
        write_state(state, trainer.state())
    return trainer


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole = trained(range(4))
    trained(range(2), state=tmp_path / "state.safetensors")
    resumed = trained(range(2, 4), place=tmp_path / "state.safetensors")
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    for folder, trainer in (("a", whole), ("b", resumed)):
        save_organism(trainer, tmp_path / folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_training_lowers_every_loss():
    trainer = OrganismTrainer(SMALL.model_copy(update={"warmup": 5}))

    def losses():
        return {name: float(loss.detach()) for name, loss in trainer._losses(0).items()}

    first = losses()
    for step in range(25):
        trainer.advance(step)
    last = losses()
    assert last["prompt"] < 0.97 * first["prompt"]
    assert last["reply"] < 0.3 * first["reply"]
    assert last["interchange"] < 0.3 * first["interchange"]


def test_what_is_saved_is_read_as_it_was(tmp_path):
    trainer = OrganismTrainer(SMALL)
    save_organism(trainer, tmp_path)
    truth = load_truth(tmp_path)
    assert torch.equal(truth.directions, trainer.directions)
    prompts = some_prompts(2)
    wanted = Readout(trainer.network.bfloat16().float().eval(), Encoder(trainer.tokenizer))
    assert truth.readout.outcomes(prompts) == pytest.approx(wanted.outcomes(prompts), rel=1e-5)
