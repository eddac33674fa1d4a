"""What is made is checked by readers of the text that know nothing of how it was made."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import jaxtyping
import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.data.questions.base import question_set
from fluoroscope.data.questions.deduction import KINDS
from fluoroscope.data.questions.generated_config import N_KINDS, GeneratedConfig

SIDES = ("train", "validation", "test")
SMALL = GeneratedConfig(n_train=96, n_validation=48, n_test=96)
FEW = GeneratedConfig(n_train=12, n_validation=12, n_test=24)
MADE = (
    "babi", "babi1", "babi2", "babi3", "deduction", "graph_distance", "graph_reach",
    "pointer_fixed", "pointer_text",
)  # fmt: skip
TOLD = (*(name for name in MADE if name != "pointer_fixed"),)


@cache
def made(name, seed=0, **pointer):
    generated = SMALL
    if pointer:
        generated = SMALL.model_copy(
            update={"pointer": SMALL.pointer.model_copy(update=dict(pointer))}
        )
    with pytest.MonkeyPatch.context() as patch:
        # Signatures are checked where few questions are made.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        return question_set(name, generated).read(seed=seed)


def answer_of(name, source):
    """By the words alone; one reader a kind of text."""
    if name.startswith("pointer"):
        return walked(source)
    if name.startswith("graph"):
        return linked(source)
    return deduced(source) if name == "deduction" else placed(source)


def walked(source):
    points_to = dict(re.findall(r"(n\d+) > (n\d+)", source))
    [at] = re.findall(r"from (n\d+)", source)
    found = []
    for _ in range(source.split().count("next")):
        at = points_to[at]
        found.append(at)
    return tuple(found)


def linked(source):
    edges = [(int(a), int(b)) for a, b in re.findall(r"n(\d+) - n(\d+)", source)]
    start, goal = map(int, re.findall(r"n(\d+)", source.partition(" . ")[2]))
    matrix = np.zeros((100, 100))
    for a, b in edges:
        matrix[a, b] = 1
    away = shortest_path(matrix, directed=False, unweighted=True)
    if "how far" in source:
        steps = int(away[start, goal])
        return ("farther",) * (steps - 1) + (str(steps),)
    # Whoever cannot reach the goal knows it once all that can be reached is.
    steps = int(away[start][np.isfinite(away[start])].max())
    is_linked = np.isfinite(away[start, goal])
    n = int(away[start, goal]) if is_linked else steps
    return ("no",) * (n - 1) + ("yes" if is_linked else "no",)


def deduced(source):
    kind_of = dict(re.findall(r"(?:Each )?(\w+) is a (\w+)\.", source))
    feared = dict(re.findall(r"Each (\w+) fears (\w+)\.", source))
    [at] = re.findall(r"What does (\w+) fear\?", source)
    found = []
    while at in kind_of:
        at = kind_of[at]
        found.append(at)
    return (*found, feared[at])


def placed(source):
    """Goes through the story once, keeping where everybody and every thing was at each time."""
    story, _, question = source.removeprefix("story: ").partition(" Question: ")
    place, has, taker, path = {}, {}, {}, {}
    for who, did, what in re.findall(r"(\w+) (went to|took|dropped) the (\w+)\.", story):
        if did == "went to":
            place[who] = what
        elif did == "took":
            assert what not in has.values(), "nobody takes what is carried"
            assert path.get(what, [(place[who], who)])[-1][0] == place[who], "or what is elsewhere"
            has[who, what], taker[what] = what, who
        else:
            del has[who, what]
        for owner, thing in has:
            if owner == who and path.get(thing, [("", "")])[-1][0] != place[who]:
                path.setdefault(thing, []).append((place[who], who))
    words = re.findall(r"\w+", question)
    if "before" in words:
        thing, asked = words[3], words[-1]
        places = [where for where, _ in path[thing]]
        assert places.count(asked) == 1
        at = places.index(asked)
        return (path[thing][at][1], asked, places[at - 1])
    if words[2] == "the":
        return (taker[words[3]], path[words[3]][-1][0])
    return (place[words[2]],)


@pytest.mark.parametrize("name", TOLD)
def test_every_hop_is_what_the_text_says(name):
    for one in made(name).items:
        assert one.hops == answer_of(name, one.source)
        assert one.target == one.hops[-1]
        assert one.depth == len(one.hops)


def test_a_fixed_graph_is_one_function_for_all_questions():
    """Of every walk the hops must go on as the first hop of each node says."""
    gathered = made("pointer_fixed")
    first = {one.source.split()[2]: one.target for one in gathered.side("train") if one.depth == 1}
    assert sorted(first) == sorted(first.values()) == sorted(f"n{i}" for i in range(16))
    for one in gathered.items:
        at = one.source.split()[2]
        for hop in one.hops:
            at = first[at]
            assert hop == at
        assert one.source.split().count("next") == one.depth


@pytest.mark.parametrize("name", MADE)
def test_sides_share_no_group_and_no_text(name):
    for key in ("group_id", "source"):
        sides = [{getattr(one, key) for one in made(name).side(side)} for side in SIDES]
        assert all(sides)
        assert len(set.union(*sides)) == sum(map(len, sides))
    assert len({one.id for one in made(name).items}) == len(made(name).items)


def test_sides_share_no_graph_whichever_order_its_edges_are_told_in():
    small = made("pointer_text", n_nodes=6, test_depth=5, train_depth=2)
    graphs = [
        {frozenset(re.findall(r"(n\d+) > (n\d+)", one.source)) for one in small.side(side)}
        for side in SIDES
    ]
    # There are 120 cycles, and sides have met many of their own.
    assert len(set.union(*graphs)) == sum(map(len, graphs)) > 60
    items = {(one.group_id, *one.source.split()[-7:]) for one in small.items}
    assert len(items) == len(small.items)


def test_an_edge_is_told_by_three_words_or_by_one():
    three, one = (
        [each.source for each in made("pointer_text", says_edges=way).items]
        for way in ("words", "one_word")
    )
    joined = [re.sub(r"n(\d+) > n(\d+)(?: ;)?", r"n\1to\2", text) for text in three]
    assert joined == one
    with pytest.raises(ConfigError, match="n_nodes must be 64 at most, got 65"):
        build(GeneratedConfig, {"pointer": {"n_nodes": 65, "says_edges": "one_word"}})


@pytest.mark.parametrize("name", MADE)
def test_depths_and_answers_are_balanced(name):
    gathered = made(name)
    for side in SIDES:
        counts = gathered.depths(side)
        # Of one graph, few walks are held back of a depth that is trained.
        deeper = {n for depth, n in counts.items() if name == "pointer_fixed" and depth > 6}
        assert len(set(counts.values()) - deeper) == 1
        if name != "pointer_fixed":
            for depth in gathered.depths(side):
                counts = Counter(one.target for one in gathered.side(side) if one.depth == depth)
                of_all = [counts[choice] for choice in gathered.choices]
                assert max(of_all) - min(of_all) <= 1 or name == "graph_distance"
    assert gathered.majority("test").share < 1 / len(gathered.choices) + 0.1
    assert set(gathered.origins.values()) == {"drawn"}


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("pointer_text", range(1, 7), range(1, 13)),
        ("pointer_fixed", range(1, 7), range(2, 13)),
        ("deduction", range(2, 4), range(2, 7)),
        ("graph_reach", range(1, 4), range(1, 7)),
        ("graph_distance", range(1, 6), range(1, 6)),
        ("babi", range(1, 4), range(1, 4)),
    ],
)
def test_the_test_side_is_deeper_than_what_was_trained(name, train, test):
    gathered = made(name)
    assert list(gathered.depths("train")) == list(train)
    assert list(gathered.depths("test")) == list(test)
    validated = range(2, 7) if name == "pointer_fixed" else train
    assert list(gathered.depths("validation")) == list(validated)


@pytest.mark.parametrize("name", ["pointer_text", "pointer_fixed", "deduction"])
def test_texts_of_all_depths_are_as_long(name):
    lengths = {len(re.findall(r"\w+|[^\w\s]", one.source)) for one in made(name).items}
    assert len(lengths) == 1


def test_a_text_need_not_say_its_depth_or_say_it_by_a_number():
    silent = made("pointer_text", says_depth="not").items
    assert {one.source.rpartition(" ")[2] for one in silent} == {"next"}
    assert all(one.source.count("next") == 1 for one in silent)
    counted = made("pointer_fixed", says_depth="number").items
    assert all(one.source == f"follow: from {one.source.split()[2]} next {one.depth}"
               for one in counted)  # fmt: skip
    fixed = made("pointer_fixed", says_depth="not")
    assert len({one.id for one in fixed.items}) == len(fixed.items)


@pytest.mark.parametrize("graph", ["permutation", "function"])
@pytest.mark.parametrize("name", ["pointer_text", "pointer_fixed"])
def test_graphs_of_other_kinds_are_walked_as_well(name, graph):
    gathered = made(name, graph=graph)
    if name == "pointer_text":
        assert all(one.hops == walked(one.source) for one in gathered.items)
        n_targets = {len(set(re.findall(r"> (n\d+)", one.source))) for one in gathered.items}
        assert (n_targets == {16}) == (graph == "permutation")
    first = {one.source.split()[2]: one.target for one in gathered.items if one.depth == 1}
    assert name == "pointer_text" or (len(set(first.values())) == 16) == (graph == "permutation")


def test_a_walk_on_a_cycle_meets_no_node_twice():
    for one in made("pointer_text").items:
        assert len(set(one.hops)) == one.depth


def test_how_many_questions_there_are_is_said():
    # Of 5 nodes there are 4! cycles; each has 5 starts, and there are 4 depths.
    small = {"n_nodes": 5, "train_depth": 2, "test_depth": 4}
    settings = build(GeneratedConfig, {"pointer": small})
    assert question_set("pointer_text", settings).item_space() == 24 * 5 * 4
    assert question_set("pointer_fixed", settings).item_space() == 5 * 4
    notes = made("pointer_fixed").notes
    assert "192 different questions of this graph (16 starts, depths 1 to 12)" in notes[0]
    assert "4 are tested on" in notes[0]
    counts = made("pointer_fixed", n_nodes=8, train_depth=3, test_depth=6).depths("test")
    assert counts == {2: 2, 3: 2, 4: 8, 5: 8, 6: 8}


@pytest.mark.parametrize(("n_train", "n_edges"), [(96, 16), (90, 15)])
def test_edges_that_training_does_not_tell_are_said(n_train, n_edges):
    fixed = question_set("pointer_fixed", SMALL.model_copy(update={"n_train": n_train})).read()
    assert len({one.source for one in fixed.side("train") if one.depth == 1}) == n_edges
    assert ("all of depth 1" in fixed.notes[0]) == (n_edges == 16)
    assert ("15 of depth 1 are trained on" in fixed.notes[0]) == (n_edges == 15)


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_depends_on_the_seed_and_the_settings_alone(name):
    first, again = (question_set(name, FEW).read(seed=0) for _ in range(2))
    assert again.items == first.items
    other = question_set(name, FEW).read(seed=1)
    assert {one.source + one.target for one in other.items} != {
        one.source + one.target for one in again.items
    }
    # Fewer questions of one side leave the other sides as they were.
    fewer = question_set(name, FEW.model_copy(update={"n_train": 6})).read(seed=0)
    assert fewer.side("test") == again.side("test")


def test_words_for_kinds_are_as_many_as_settings_count_on():
    assert len(set(KINDS)) == N_KINDS


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pointer": {"n_nodes": 8}}, "test_depth=12 comes back"),
        ({"pointer": {"train_depth": 13}}, "test_depth=12 is below train_depth=13"),
        ({"deduction": {"n_chains": 6, "test_depth": 9}}, "need 49 kinds"),
        ({"graph": {"n_nodes": 12}}, "have 14 nodes at least, n_nodes is 12"),
        ({"story": {"longest": 3}}, "longest=3 is below shortest=4"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        build(GeneratedConfig, settings)


def test_sizes_that_cannot_be_are_refused():
    few = SMALL.model_copy(update={"n_test": 5})
    with pytest.raises(ConfigError, match="n_test=5 questions of pointer_text cannot be of 12"):
        question_set("pointer_text", few).read()
    pointer = SMALL.pointer.model_copy(update={"n_nodes": 3, "train_depth": 1, "test_depth": 2})
    tiny = SMALL.model_copy(update={"pointer": pointer})
    with pytest.raises(ConfigError, match="train_depth must be 2 at least, got 1"):
        question_set("pointer_fixed", tiny).read()
    # Two cycles of three nodes: twelve questions, however often one draws.
    with pytest.raises(ConfigError, match="finds no new question of depth"):
        question_set("pointer_text", tiny).read()


def test_settings_of_one_set_leave_another_as_it_is():
    known = question_set("gsm8k", SMALL)
    assert known is question_set("gsm8k")
    assert replace(question_set("babi1"), generated=SMALL) == question_set("babi1", SMALL)
