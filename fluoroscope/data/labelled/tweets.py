"""TweetEval (Barbieri et al. 2020, arXiv:2010.12421): sentiment without the neutral, and offence.

Files: `train_text.txt` with `train_labels.txt` beside it, and so on, a tweet a line.
"""

from fluoroscope.data.labelled.lines import beside
from fluoroscope.data.labelled.written import Form, WrittenSet
from fluoroscope.data.rows import Hub

_HUB = "cardiffnlp/tweet_eval"
_SPLITS = ("train", "validation", "test")
_FILES = ("train_text.txt", "val_text.txt", "test_text.txt")
_SIGNS = {"0": "negative", "2": "positive"}

SENTIMENT = WrittenSet(
    name="tweet_sentiment_binary",
    classes=("negative", "positive"),
    hubs=tuple(Hub(_HUB, "sentiment", split) for split in _SPLITS),
    hub_labels=_SIGNS,
    forms=(Form(_FILES, beside("_text", "_labels"), _SIGNS),),
    unlabelled={"1": "it is neutral", "neutral": "it is neutral"},
    aliases=("tweeteval/sentiment", "tweet_eval/sentiment"),
)
OFFENSIVE = WrittenSet(
    name="tweet_offensive",
    classes=("not offensive", "offensive"),
    hubs=tuple(Hub(_HUB, "offensive", split) for split in _SPLITS),
    forms=(Form(_FILES, beside("_text", "_labels")),),
    aliases=("tweeteval/offensive", "tweet_eval/offensive"),
)
