"""What a plan reckons with before any data is read: examples of a set, and their tokens."""

from collections.abc import Mapping

SIZES: Mapping[str, tuple[int, int, int]] = {
    "sst2": (6920, 872, 1821),
    "imdb": (20000, 5000, 25000),
    "cola": (6841, 1710, 1043),
    "trec": (4362, 1090, 500),
    "subj": (6400, 1600, 2000),
    "agnews": (96000, 24000, 7600),
    "mr": (7500, 1100, 2100),
    "cr": (2700, 400, 750),
    "tweet_sentiment_binary": (24900, 1200, 6400),
    "tweet_offensive": (11916, 1324, 860),
    "mnli": (382900, 9832, 19600),
    "snli": (549400, 9842, 9824),
    "snli_cad": (1666, 200, 400),
    "imdb_cad": (1707, 245, 976),
}
_UNKNOWN = (8000, 1000, 2000)
_TOKENS = {"cola": 12, "trec": 14, "imdb": 280, "imdb_cad": 220, "agnews": 55, "subj": 31}
_USUAL_TOKENS = 28


def rows_of(name: str, n_train: int | None) -> dict[str, int]:
    """Examples of each side, roughly."""
    train, validation, test = SIZES.get(name, _UNKNOWN)
    return {
        "train": min(train, n_train or train),
        "validation": validation,
        "test": test,
    }


def tokens_of(name: str, max_length: int) -> int:
    """Tokens of one of its texts, padding of a batch included, roughly."""
    return min(_TOKENS.get(name, _USUAL_TOKENS), max_length)
