"""A tiny model with random SAEs, and a small study of it."""

import torch

from fluoroscope.core.config import build
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.formats.native import save_sae
from fluoroscope.sae.topk import TopK, TopKConfig
from fluoroscope.studies.anatomy.spec import AnatomySpec

CONTEXT, D_SAE = 24, 40


def small_model(family="gpt2"):
    return tiny_model(family)


def small_saes(model, points=("0.resid_post", "2.resid_post"), seed=0, d_sae=D_SAE):
    """Random SAEs, with one latent that can never be active."""
    found = {}
    for i, name in enumerate(points):
        sae = TopK(TopKConfig(d_model=model.d_model, d_sae=d_sae, k=5), seed + i)
        with torch.no_grad():
            sae.b_enc[3] = -1e6
        found[HookPoint(name)] = sae.requires_grad_(False)
    return found


def saved_model(folder, family="gpt2"):
    model = small_model(family)
    place = folder / family
    model.network.save_pretrained(place)
    model.tokenizer.save_pretrained(place)
    return place


def saved_saes(folder, model, **settings):
    for point, sae in small_saes(model, **settings).items():
        save_sae(sae, folder / str(point), point, {"seed": 0})
    return folder


WORDS = "the old river ran down past seven mills and a church where nobody had sung for years"


def text_file(folder, n=60):
    words = WORDS.split()
    lines = [" ".join(words[(i * j + i) % len(words)] for j in range(9)) for i in range(n)]
    path = folder / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def small_spec(folder, family="gpt2", **settings):
    place = folder / family
    if not place.exists():
        saved_model(folder, family)
        saved_saes(folder / "saes", small_model(family))
        saved_saes(folder / "others", small_model(family), seed=7)
        text_file(folder)
    return build(
        AnatomySpec,
        {
            "model": str(place),
            "saes": str(folder / "saes"),
            "corpus": {"source": str(folder / "text.txt"), "context": CONTEXT},
            "n_sequences": 12,
            "read": {"sequences_per_shard": 5},
            "match": {"others": {"other": str(folder / "others")}, "draws": 1},
            "cross": {"n_sequences": 3},
            **settings,
        },
    )
