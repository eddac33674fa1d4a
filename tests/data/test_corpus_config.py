import pytest

from fluoroscope.core.config import Config, build
from fluoroscope.core.errors import ConfigError
from fluoroscope.data.corpus_config import CorpusConfig, parse_take


class Outer(Config):
    corpus: CorpusConfig


def test_a_bare_text_is_a_source():
    assert build(Outer, {"corpus": "stories.txt"}).corpus == CorpusConfig(source="stories.txt")


@pytest.mark.parametrize(
    ("take", "parsed"),
    [
        ("all", ("all", 1)),
        ("first:100", ("first", 100)),
        ("last:2e3", ("last", 2000)),
        ("hash:0.25", ("hash", 0.25)),
    ],
)
def test_take_is_read_as_a_rule_and_an_amount(take: str, parsed: tuple[str, float]):
    assert parse_take(take) == parsed


@pytest.mark.parametrize("take", ["", "some", "first", "first:0", "last:1.5", "hash:0", "hash:2"])
def test_a_take_that_means_nothing_is_refused(take: str):
    with pytest.raises(ConfigError, match="take"):
        build(CorpusConfig, {"source": "x", "take": take})


@pytest.mark.parametrize("source", ["model:", "organism:"])
@pytest.mark.parametrize("take", ["last:5", "hash:0.5"])
def test_text_without_an_end_has_no_last_documents(take: str, source: str):
    with pytest.raises(ConfigError, match="corpus that ends"):
        build(CorpusConfig, {"source": source, "take": take})


def test_a_window_of_one_token_is_refused():
    with pytest.raises(ConfigError, match="context"):
        build(CorpusConfig, {"source": "x", "context": 1})
