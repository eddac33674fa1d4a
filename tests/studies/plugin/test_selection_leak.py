"""Texts that a layer is chosen by are never those that it is tested on, in any set or splitting."""

import pytest

from fluoroscope.core.errors import FluoroscopeError
from fluoroscope.data.labelled.base import labelled_place, labelled_set, limited
from fluoroscope.studies.plugin.selection.features import check_apart
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig

QUICK = ("cola", "organism_inference")
LONG = (
    "trec", "cr", "organism_reviews", "sst2", "subj", "mr", "imdb_cad", "snli_cad",
    "tweet_offensive", "tweet_sentiment_binary",
)  # fmt: skip


def chosen_and_tested(name, splitting, data_folder, seed=2023, n=400):
    place = labelled_place(name, data_folder)
    if place.startswith("hf:"):
        pytest.skip(f"the files of {name} are not here")
    read = labelled_set(name).read(place, seed=seed, splitting=splitting)
    side = IlmConfig().split
    return limited(read.side(side), n, seed), read.side("test")


@pytest.mark.parametrize("splitting", ["sound", "paper"])
@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in LONG)]
)
def test_what_chooses_a_layer_is_not_what_tests_it(name, splitting, data_folder):
    chosen, tested = chosen_and_tested(name, splitting, data_folder)
    assert len(chosen) > 100
    assert len(tested) > 100
    assert not {one.id for one in chosen} & {one.id for one in tested}
    if splitting == "sound":
        assert not {one.group_id for one in chosen} & {one.group_id for one in tested}
        texts = {(one.text, one.pair) for one in tested}
        assert not [one for one in chosen if (one.text, one.pair) in texts]


@pytest.mark.parametrize("split", ["test", "dev", "all"])
def test_no_setting_has_layers_chosen_on_the_test_side(split):
    with pytest.raises(ValueError, match="'train' or 'validation'"):
        IlmConfig(split=split)


def test_one_text_on_both_sides_is_enough_to_be_refused():
    check_apart(["a", "b"], ["c"])
    with pytest.raises(FluoroscopeError):
        check_apart(["a", "b"], ["c", "b"])
