"""The organism with people to forget, small enough to be read in a second."""

import pytest
import torch

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.unlearning.sets import organism_sets


@pytest.fixture(scope="session")
def people():
    return organism_sets(12, seed=0, n_strangers=24, n_other_texts=6)


@pytest.fixture(scope="session")
def organism_saes():
    from fluoroscope.models.hub import SHIPPED
    from fluoroscope.sae.formats.native import load_sae

    folder = SHIPPED["organism"] / "saes" / "batch_topk"
    names = ("0.resid_post", "4.resid_post")
    return {HookPoint(name): load_sae(folder / name, expect={"hook_point": name}) for name in names}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
