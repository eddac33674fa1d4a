import json

import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import Registry, nearest

FORMATS = Registry("format", {"json": "json:dumps", "absent": "no.such.module:Thing"})


def test_a_name_loads_what_stands_behind_it():
    assert FORMATS.load("json") is json.dumps


def test_nothing_is_imported_before_it_is_asked_for():
    assert list(FORMATS) == ["json", "absent"]
    with pytest.raises(ImportError):
        FORMATS.load("absent")


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(ConfigError) as caught:
        FORMATS.load("jsn")
    message = str(caught.value)
    assert message == "format 'jsn' does not exist. Did you mean 'json'? There are: absent, json."


def test_asking_whether_a_name_is_there_is_no_error():
    assert "json" in FORMATS
    assert "xml" not in FORMATS
    assert len(FORMATS) == 2


def test_no_suggestion_is_made_where_nothing_is_near():
    assert nearest("zzz", ["json", "absent"]) == ""
