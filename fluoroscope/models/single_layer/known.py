"""Names of large models, for which settings have short keys; free of torch."""

import os
from collections.abc import Mapping
from pathlib import Path

from fluoroscope.core.errors import ModelError

LLMS: Mapping[str, str] = {
    "llama3.1": "meta-llama/Meta-Llama-3.1-8B",
    "llama3": "meta-llama/Meta-Llama-3-8B",
    "llama2": "meta-llama/Llama-2-7b-hf",
    "qwen2_0.5b": "Qwen/Qwen2-0.5B",
    "qwen2_1.5b": "Qwen/Qwen2-1.5B",
    "qwen2_7b": "Qwen/Qwen2-7B",
    "mistral0.3": "mistralai/Mistral-7B-v0.3",
    "gemma2": "google/gemma-2-9b",
    "falcon": "tiiuae/falcon-7b",
    "llama3.1_instruct": "meta-llama/Meta-Llama-3.1-8B-Instruct",
    "mistral0.1": "mistralai/Mistral-7B-v0.1",
    "qwen2_72b": "Qwen/Qwen2-72B",
    "kollama": "beomi/Llama-3-Open-Ko-8B",
    "gerllama": "DiscoResearch/Llama3-German-8B",
    "chillama": "hfl/llama-3-chinese-8b",
}
"""Keys of the PiFi scripts, and the repositories they stand for."""

STORIES = "stories260k"
"""A real Llama of 260 thousand weights, which lies beside the data."""


def llm_source(key_or_source: str) -> str:
    """The repository or folder of a key; other text is a folder or a hub id already."""
    if key_or_source == STORIES:
        return str(_stories())
    return LLMS.get(key_or_source, key_or_source)


def _stories() -> Path:
    places = [Path("..") / "shared" / "weights" / "stories260K"]
    if data := os.environ.get("FLUOROSCOPE_DATA"):
        places.insert(0, Path(data).expanduser().parent / "weights" / "stories260K")
    for place in places:
        if (place / "config.json").is_file():
            return place.resolve()
    raise ModelError(
        f"The model {STORIES} is not here: there is no {' and no '.join(map(str, places))}. Set "
        "FLUOROSCOPE_DATA to the data folder that `weights` lies beside, or name the model's "
        "folder."
    )
