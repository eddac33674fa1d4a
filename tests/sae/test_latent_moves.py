import pytest
import torch

from fluoroscope.core.errors import FluoroscopeError
from fluoroscope.core.seeding import torch_stream
from fluoroscope.sae.latent_edits import SetLatent
from fluoroscope.sae.latent_moves import MoveLatent, MoveLatentAlong

D_MODEL, LATENTS, TARGETS = 12, [2, 5], [1.5, 0.0]


def activations(n=64):
    return torch.randn(n, D_MODEL, generator=torch_stream(0, "latent moves")).double()


@pytest.fixture(params=["jumprelu", "topk"])
def sae(request):
    from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
    from fluoroscope.sae.topk import TopK, TopKConfig

    if request.param == "topk":
        made = TopK(TopKConfig(d_model=D_MODEL, d_sae=30, k=8), seed=1)
    else:
        made = JumpReLU(JumpReLUConfig(d_model=D_MODEL, d_sae=30, target_l0=8), seed=1)
        with torch.no_grad():
            made.threshold.fill_(0.2)
    return made.double().requires_grad_(False)


def test_the_whole_way_is_to_set_and_no_way_is_nothing(sae):
    x = activations()
    whole = MoveLatent(sae, LATENTS, TARGETS)(x)
    torch.testing.assert_close(whole, SetLatent(sae, LATENTS, TARGETS)(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(MoveLatent(sae, LATENTS, TARGETS, 0.0)(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("share", [0.25, 1.5, -1.0])
def test_a_share_adds_that_part_of_what_is_missing(sae, share):
    x = activations()
    missing = torch.tensor(TARGETS).double() - sae.encode(x)[:, LATENTS]
    expected = x + share * missing @ sae.W_dec[LATENTS]
    torch.testing.assert_close(
        MoveLatent(sae, LATENTS, TARGETS, share)(x), expected, rtol=0, atol=1e-6
    )


def test_a_latent_that_has_its_value_stays_and_the_error_term_is_kept(sae):
    x = activations()
    f = sae.encode(x)
    latent = int((f > 0).sum(0).argmax())
    row = int(f[:, latent].argmax())
    moved = MoveLatent(sae, latent, float(f[row, latent]))(x)
    torch.testing.assert_close(moved[row], x[row], rtol=0, atol=1e-6)
    change = moved - x
    unit = sae.W_dec[latent] / sae.W_dec[latent].norm()
    torch.testing.assert_close(change, (change @ unit)[:, None] * unit, rtol=0, atol=1e-6)


def test_of_a_tied_latent_that_is_active_the_whole_way_is_idempotent():
    """Where the encoder reads what the decoder writes; else a set latent reads otherwise."""
    from fluoroscope.sae.relu import ReLU, ReLUConfig

    sae = ReLU(ReLUConfig(d_model=D_MODEL, d_sae=6), seed=1).double().requires_grad_(False)
    rows = torch.linalg.qr(activations(D_MODEL))[0][:6]
    sae.W_dec.copy_(rows)
    sae.W_enc.copy_(rows.T)
    x = activations()
    move = MoveLatent(sae, 3, 0.7)
    is_active = sae.encode(x)[:, 3] > 0
    once = move(x)
    torch.testing.assert_close(
        sae.encode(once)[is_active, 3], torch.full_like(x[is_active, 0], 0.7)
    )
    torch.testing.assert_close(move(once)[is_active], once[is_active])


def others(n):
    """Of lengths that differ widely."""
    found = torch.randn(n, D_MODEL, generator=torch_stream(0, "others")).double()
    return [10.0**i * direction for i, direction in enumerate(found)]


@pytest.mark.parametrize("share", [1.0, 0.25, 1.5])
def test_along_other_directions_each_latent_changes_as_much_at_every_position(sae, share):
    x = activations()
    for latent, target, direction in zip(LATENTS, TARGETS, others(2), strict=True):
        change = MoveLatentAlong(sae, latent, target, share, [direction])(x) - x
        own = MoveLatent(sae, latent, target, share)(x) - x
        torch.testing.assert_close(change.norm(dim=1), own.norm(dim=1), rtol=0, atol=1e-9)
        assert own.norm(dim=1).max() > 0.1
        unit = direction / direction.norm()
        torch.testing.assert_close(change, (change @ unit)[:, None] * unit, rtol=0, atol=1e-9)


def test_along_other_directions_latents_add_up_and_along_their_own_nothing_differs(sae):
    x = activations()
    both = MoveLatentAlong(sae, LATENTS, TARGETS, 1.5, others(2))(x) - x
    alone = [
        MoveLatentAlong(sae, latent, target, 1.5, [direction])(x) - x
        for latent, target, direction in zip(LATENTS, TARGETS, others(2), strict=True)
    ]
    torch.testing.assert_close(both, sum(alone), rtol=0, atol=1e-9)
    own = MoveLatentAlong(sae, LATENTS, TARGETS, 1.5, [7 * sae.W_dec[j] for j in LATENTS])
    expected = MoveLatent(sae, LATENTS, TARGETS, 1.5)(x)
    torch.testing.assert_close(own(x), expected, rtol=0, atol=1e-9)


def test_moves_along_other_directions_are_told_apart_by_what_is_written(sae):
    one, two = others(2)
    keys = {
        MoveLatentAlong(sae, 2, 1.5, share, [direction]).key
        for share in (1.0, 0.5)
        for direction in (one, two, 3 * one)
    }
    assert len(keys) == 4


def test_terms_of_moves_along_other_directions_do_what_their_change_does():
    from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig

    made = JumpReLU(JumpReLUConfig(d_model=D_MODEL, d_sae=30, target_l0=8), seed=1)
    sae, x = made.double().requires_grad_(False), activations()
    move = MoveLatentAlong(sae, LATENTS, TARGETS, 0.5, others(2))
    added = torch.zeros_like(x)
    for term in move.terms():
        read = x @ term.read.double() + term.bias
        f = torch.where(read > term.threshold, read, 0.0)
        added += (term.alpha + term.beta * f)[:, None] * term.write
    torch.testing.assert_close(added, move(x) - x, rtol=0, atol=1e-6)
    assert len({term.write_key for term in move.terms()}) == 2


def test_wrong_numbers_name_themselves(sae):
    with pytest.raises(FluoroscopeError, match="share of MoveLatent"):
        MoveLatent(sae, 2, 1.0, float("inf"))
    with pytest.raises(FluoroscopeError, match="targets"):
        MoveLatent(sae, [2, 3], [1.0])
    with pytest.raises(FluoroscopeError, match="2 latents and 1 directions"):
        MoveLatentAlong(sae, [2, 3], [1.0, 1.0], 1.0, others(1))
    with pytest.raises(FluoroscopeError, match="12 wide, the direction 5"):
        MoveLatentAlong(sae, 2, 1.0, 1.0, [torch.ones(5)])
    with pytest.raises(FluoroscopeError, match="vector of zeros"):
        MoveLatentAlong(sae, 2, 1.0, 1.0, [torch.zeros(D_MODEL)])
    with pytest.raises(FluoroscopeError):
        MoveLatent(sae, 99, 1.0)
