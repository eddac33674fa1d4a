from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fluoroscope.core.config import (
    Config,
    build,
    canonical_json,
    how,
    merge_settings,
    parse_overrides,
    parse_value,
    read_settings,
    settings_hash,
    what_half,
)
from fluoroscope.core.errors import ConfigError, UserError


class Inner(Config):
    k: int = 16
    """Latents that stay active."""

    workers: int = how(1)
    """Processes."""


class Outer(Config):
    n_tokens: int = 100
    revision: str | None = None
    rate: float = 0.1
    stream: Literal["resid_pre", "resid_post"] = "resid_post"
    inner: Inner = Inner()
    maybe: Inner | None = None
    several: list[Inner] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    batch_rows: int = how(64)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
SETTINGS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.integers() | inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-3", -3),
        ("2e6", 2_000_000),
        ("1.5e3", 1500),
        ("4e-4", 4e-4),
        ("0.1", 0.1),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("[1, 2e3, x]", [1, 2000, "x"]),
        ("{a: 1e2}", {"a": 100}),
        ("12.resid_post", "12.resid_post"),
        ("no", "no"),
        ("inf", "inf"),
        ("1_000", "1_000"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_value_is_read_as_what_it_looks_like(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_list_that_does_not_end_is_an_error_that_shows_it():
    with pytest.raises(ConfigError, match=r"'\[1, 2' is neither a list"):
        parse_value("[1, 2")


def test_dotted_keys_nest_and_the_last_one_wins():
    arguments = ["inner.k=8", "n_tokens=2e6", "inner.k=16", "inner.workers=2"]
    assert parse_overrides(arguments) == {"inner": {"k": 16, "workers": 2}, "n_tokens": 2_000_000}


@pytest.mark.parametrize("argument", ["n_tokens", "=3", "inner..k=3", ".k=3", ""])
def test_what_is_not_key_value_is_refused(argument):
    with pytest.raises(ConfigError, match="key=value"):
        parse_overrides([argument])


@given(SETTINGS, SETTINGS)
def test_merging_twice_is_merging_once_and_nothing_is_its_unit(base, over):
    once = merge_settings(base, over)
    assert merge_settings(once, over) == once
    assert merge_settings({}, base) == merge_settings(base, {}) == base


def test_merging_leaves_both_sides_as_they_were():
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge_settings(base, over) == {"a": {"b": 1, "c": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_an_unknown_setting_names_the_nearest_and_all_there_are():
    with pytest.raises(ConfigError, match=r"'n_token' does not exist. Did you mean 'n_tokens'\?"):
        build(Outer, {"n_token": 3})


@pytest.mark.parametrize("place", ["inner", "maybe"])
def test_an_unknown_setting_of_a_group_lists_those_of_the_group(place):
    with pytest.raises(ConfigError, match=f"'{place}.kk' does not exist.*has: k, workers"):
        build(Outer, {place: {"kk": 3}})


def test_an_unknown_setting_in_a_list_lists_those_of_its_items():
    with pytest.raises(ConfigError, match=r"'several.0.kk' does not exist.*has: k, workers"):
        build(Outer, {"several": [{"kk": 3}]})


def test_a_wrong_value_is_named_with_what_came():
    with pytest.raises(ConfigError, match=r"'n_tokens': .*integer.*\(got 'many'\)"):
        build(Outer, {"n_tokens": "many"})


def test_a_wrong_choice_names_the_choices_and_the_nearest():
    with pytest.raises(ConfigError, match=r"must be 'resid_pre' or 'resid_post', got 'resid_pst'"):
        build(Outer, {"stream": "resid_pst"})


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"n_token": 3, "rate": "fast"})
    assert len(str(caught.value).splitlines()) == 2
    assert isinstance(caught.value, UserError)


def test_a_text_that_looks_like_a_number_stays_a_text():
    settings = parse_overrides(["revision=1234567"])
    assert build(Outer, settings).revision == "1234567"


def test_how_settings_do_not_change_what_is_hashed_however_deep_they_are():
    def hashed(workers: int) -> str:
        inner = Inner(workers=workers)
        outer = Outer(inner=inner, several=[inner], by_name={"x": inner}, batch_rows=workers)
        return settings_hash(what_half(outer))

    assert hashed(1) == hashed(8)


def test_what_settings_change_what_is_hashed_however_deep_they_are():
    inner = Inner(k=17)
    variants = [
        Outer(),
        Outer(inner=inner),
        Outer(maybe=inner),
        Outer(several=[inner]),
        Outer(by_name={"x": inner}),
        Outer(n_tokens=5),
    ]
    assert len({settings_hash(what_half(variant)) for variant in variants}) == len(variants)


def test_the_what_half_builds_the_same_configuration_again():
    outer = Outer(inner=Inner(k=3), several=[Inner(k=4)], rate=0.3)
    assert build(Outer, what_half(outer)) == outer


@given(st.dictionaries(st.text(max_size=4), SCALARS))
def test_canonical_json_does_not_depend_on_the_order_of_keys(settings):
    assert canonical_json(settings) == canonical_json(dict(reversed(settings.items())))


def test_a_configuration_never_changes():
    with pytest.raises(ValueError, match="frozen"):
        Outer().n_tokens = 3


def test_a_settings_file_is_read_as_it_looks(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(
        "n_tokens: 2e6\nclasses: [yes, no, on]\nclock: 12:30\ncode: 010\n"
        "quoted: '2e6'\nnothing:\nday: 2024-01-01\n"
    )
    assert read_settings(path) == {
        "n_tokens": 2_000_000,
        "classes": ["yes", "no", "on"],
        "clock": "12:30",
        "code": 10,
        "quoted": "2e6",
        "nothing": None,
        "day": "2024-01-01",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\na: 2\n", "'a' is given twice"),
        (b"- 1\n- 2\n", "must hold `key: value` lines, got list"),
        (b"a: [1\n", "not a YAML file of settings"),
        (b"\xff\xfe\x00", "not a YAML file of settings"),
    ],
)
def test_a_bad_settings_file_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_a_missing_settings_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no settings file"):
        read_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_settings(tmp_path)


def test_an_empty_settings_file_sets_nothing(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("# nothing yet\n")
    assert read_settings(path) == {}


class Named(Config):
    bare = "name"
    name: str
    limit: int = 3


class HoldsNamed(Config):
    task: Named


def test_a_bare_text_goes_together_with_settings_below_it():
    settings = parse_overrides(["task=emgsd", "task.limit=5"])
    assert build(HoldsNamed, settings).task == Named(name="emgsd", limit=5)


def test_of_a_bare_and_a_named_value_the_last_one_holds():
    preset = {"task": {"name": "a", "limit": 1}}
    assert build(HoldsNamed, merge_settings(preset, {"task": "b"})).task == Named(name="b", limit=1)
    again = merge_settings(merge_settings({"task": "a"}, {"task": {"name": "b"}}), {"task": "c"})
    assert build(HoldsNamed, again).task.name == "c"
    named = merge_settings({"task": "a"}, {"task": {"name": "b"}})
    assert build(HoldsNamed, named).task.name == "b"


class Group(Config):
    k: int = 1


class HoldsGroup(Config):
    group: Group = Group()


def test_a_text_for_a_group_without_a_bare_setting_is_refused_by_the_groups_name():
    settings = merge_settings({"group": {"k": 2}}, {"group": "foo"})
    with pytest.raises(ConfigError, match=r"'group' is a group.*got 'foo'.*It has: k"):
        build(HoldsGroup, settings)


def test_keys_keep_their_places_when_their_values_are_replaced():
    assert list(merge_settings({"a": 1, "b": 2}, {"a": 3})) == ["a", "b"]
