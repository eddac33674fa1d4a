"""A small corpus and a byte tokenizer, for tests of data."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from fluoroscope.models.tiny import tiny_model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_model("llama").tokenizer


@pytest.fixture(scope="session")
def story_texts() -> list[str]:
    return [f"story {i} tells of {'a very ' * (i % 7)}big number {i * i}" for i in range(200)]


@pytest.fixture(scope="session")
def story_file(tmp_path_factory: pytest.TempPathFactory, story_texts: list[str]) -> Path:
    """One document a line."""
    path = tmp_path_factory.mktemp("corpus") / "stories.txt"
    path.write_text("\n".join(story_texts) + "\n", encoding="utf-8")
    return path
