"""A run whose online detector is learnt, which several files read and none changes."""

import pytest


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory):
    # Only who asks for a run loads a study.
    from fluoroscope.core.config import build
    from fluoroscope.runs.engine import execute
    from fluoroscope.runs.how import How
    from fluoroscope.studies.hallucination.spec import HallucinationSpec
    from fluoroscope.studies.hallucination.study import HallucinationStudy

    settings = {
        "model": "organism",
        "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
        "data": {"name": "organism", "limit": 60},
        "answers": {"max_tokens": 8, "samples": 0},
        "tracking": {"sample": 200},
        "detection": {"folds": 3, "repeats": 1, "resamples": 100},
    }
    spec, root = build(HallucinationSpec, settings), tmp_path_factory.mktemp("watched")
    return execute(
        HallucinationStudy(), spec, "watched", How(devices="cpu"), root=root, only=["online"]
    )
