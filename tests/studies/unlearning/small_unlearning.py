"""The whole unlearning study at a size for tests: one layer, one setting, two texts files."""

import json
from pathlib import Path

from fluoroscope.core.config import build
from fluoroscope.studies.unlearning.spec import UnlearningSpec

SMALL = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "4.resid_post"},
    "select": {"by": ["frequency", "importance"], "max_retain": [0.05], "n": [8]},
    "clamp": {"strengths": [60.0], "percentile": 90.0},
    "finetune": [{"objective": "uniform", "n_iterations": 4, "batch_size": 4, "validate_every": 2}],
    "relearn": {
        "training": {
            "objective": "ordinary",
            "n_iterations": 2,
            "batch_size": 4,
            "validate_every": 2,
        }
    },
    "evaluate": {"draws": 1, "n_texts": 12, "texts_per_shard": 24},
}
TOWNS = ("Arden", "Brill", "Corva", "Dorn", "Elmsea", "Farrow")
HOBBIES = ("archery", "dancing", "gardening", "hiking")


def text_files(folder: Path) -> tuple[str, str]:
    """Texts of two sorts that the organism can read, 40 of each."""
    forget = [
        f"Question: Where does Person {i} live?\nAnswer: {TOWNS[i % len(TOWNS)]}."
        for i in range(40)
    ]
    retain = [
        f"Some people like {HOBBIES[i % len(HOBBIES)]} and others do not, said number {i}."
        for i in range(40)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, texts in (("forget", forget), ("retain", retain)):
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        files.append(str(file))
    return files[0], files[1]


def texts_spec(folder: Path, **changes: object) -> UnlearningSpec:
    forget, retain = text_files(folder)
    sides = {
        "forget": {"source": forget, "held_out": 0.4},
        "retain": {"source": retain, "held_out": 0.4},
    }
    return build(UnlearningSpec, {**SMALL, **sides, **changes})


def people_spec(**changes: object) -> UnlearningSpec:
    return build(UnlearningSpec, {**SMALL, "people": 10, **changes})
