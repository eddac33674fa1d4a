import subprocess
import sys

import pytest

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.models.hook_points import STREAMS, HookPoint, check_layer, parse_hook_points


def test_text_and_hook_point_are_each_others_inverse():
    for stream in STREAMS:
        point = HookPoint(0, stream)
        assert HookPoint(str(point)) == HookPoint.parse(str(point)) == point
    assert str(HookPoint(layer=12, stream="resid_post")) == "12.resid_post"


def test_hook_points_sort_in_the_order_they_are_computed():
    in_order = [
        HookPoint(layer, s) for layer in (0, 1) for s in STREAMS if (layer, s) != (1, "embed")
    ]
    assert sorted([*in_order[5:], *in_order[:5]]) == in_order
    assert max(in_order) == HookPoint("1.resid_post")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("all.resid_post", ["0.resid_post", "1.resid_post", "2.resid_post"]),
        ("0,2.resid_post", ["0.resid_post", "2.resid_post"]),
        ("0,2.resid_post, 1.mlp_out", ["0.resid_post", "1.mlp_out", "2.resid_post"]),
        ("embed", ["0.embed"]),
        ("embed,2.attn_out", ["0.embed", "2.attn_out"]),
        (["2.mlp_out", HookPoint(0, "mlp_out"), "2.mlp_out"], ["0.mlp_out", "2.mlp_out"]),
        (HookPoint(1, "resid_pre"), ["1.resid_pre"]),
    ],
)
def test_a_list_of_hook_points_names_each_once_in_order(wanted, expected):
    assert [str(point) for point in parse_hook_points(wanted, n_layers=3)] == expected


def test_a_layer_that_the_model_does_not_have_is_named_with_those_it_has():
    with pytest.raises(ModelError, match=r"no hook point 3\.mlp_out: its layers are 0 to 2"):
        parse_hook_points("3.mlp_out", n_layers=3)
    with pytest.raises(ModelError, match="0 to 2"):
        check_layer(HookPoint("7.resid_pre"), 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("2.resid_pots", "Did you mean 'resid_post'"),
        ("resid_post", "LAYER.STREAM"),
        ("x.resid_post", "LAYER.STREAM"),
        ("-1.resid_post", "LAYER.STREAM"),
        ("0,1", "without a stream"),
        ("1.embed", "embed is 0.embed"),
        ([], "No hook point"),
    ],
)
def test_a_wrong_hook_point_says_what_is_allowed(wrong, message):
    with pytest.raises(ConfigError, match=message):
        parse_hook_points(wrong, n_layers=3)


def test_settings_can_name_hook_points_without_torch():
    modules = "fluoroscope.models.hook_points, fluoroscope.models.families"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"
