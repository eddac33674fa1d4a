"""Edits of tracks: exact effects, fair controls, and claims that chance does not make."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.core.storage import sha256_folder
from fluoroscope.data.answers.record import AnswerRecord, OpenQuestion, stated_answer
from fluoroscope.interventions.positions import LAST
from fluoroscope.interventions.screening import Screen
from fluoroscope.interventions.steering import steer
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.sae.latent_edits import SetLatent
from fluoroscope.sae.topk import TopK, TopKConfig
from fluoroscope.steps.sae_sources import load_saes
from fluoroscope.studies.hallucination.causes import (
    ABLATE,
    BOOST,
    CONTROLS,
    ELSEWHERE,
    ITSELF,
    LIKELIEST_RIVAL,
    LOSING,
    STATED_RIVAL,
    TRACKS,
    TRUE_RIVAL,
    WINNING,
    Track,
    WeighedSetLatent,
    contest,
    edits_elsewhere,
    latents_elsewhere,
    other_tracks,
    parted,
    rival_of,
    sample_answers,
    track_edits,
    tracks_of,
)
from fluoroscope.studies.hallucination.causes_statistics import (
    CHANGE,
    SIZE,
    Cell,
    cells,
    comparisons,
    means,
    sign_flip_p,
    verdict,
)
from fluoroscope.studies.hallucination.spec import HallucinationSpec
from fluoroscope.studies.hallucination.steps.causes import CAUSES, CausesStep
from fluoroscope.studies.hallucination.study import HallucinationStudy

POINTS = [HookPoint("2.resid_post"), HookPoint("3.resid_post")]
PROMPT = "Question: Where does Alka Dunford live?\nAnswer:"
SMALL = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "data": {"name": "organism", "limit": 24},
    "answers": {"max_tokens": 6, "samples": 0},
    "tracking": {"sample": 40, "tracker": "greedy"},
    "causes": {"answers": 8, "controls": 3, "answers_per_shard": 3},
}


def small(**changes):
    return build(HallucinationSpec, {**SMALL, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return execute(
        HallucinationStudy(), small(), "one", How(devices="cpu"), root=folder, only=[CAUSES]
    )


@pytest.fixture(scope="module")
def effects(run):
    return pl.read_parquet(run.folder / CAUSES / "effects.parquet")


@pytest.fixture(scope="module")
def layers(organism_model):
    config = HallucinationStudy().resolve(small())
    saes = load_saes(config.saes, device="cpu", model=organism_model.identity)
    return [(point, saes[str(point)]) for point in POINTS]


def prompt_tokens(model):
    return tuple(model.tokenizer(PROMPT)["input_ids"])


@pytest.fixture(scope="module")
def active(organism_model, layers):
    """The strongest latent of each layer at the prompt's last position, as a track."""
    found = []
    seen = {}
    hooks = {point: lambda value, p=point: seen.update({p: value[0, -1]}) for point, _ in layers}
    with organism_model.hooked(hooks):
        organism_model.forward(torch.tensor([prompt_tokens(organism_model)]))
    for point, sae in layers:
        values = sae.encode(seen[point])
        found.append((int(values.argmax()), float(values.max())))
    latents, activations = zip(*found, strict=True)
    return Track(0, (0, 1), latents, activations, 1.0)


def gap(probabilities, one=5, other=9):
    found = probabilities.double().log()
    return found[..., one] - found[..., other]


def naive_gap(model, edits):
    """By a whole pass over the prompt, with the edits in hooks."""
    tokens = torch.tensor([prompt_tokens(model)])
    with steer(model, edits, LAST):
        return gap(model.forward(tokens)[0, -1].double().softmax(-1))


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_an_edited_track_changes_the_gap_as_a_whole_pass_with_hooks_says(
    organism_model, layers, active, factor
):
    edits = track_edits(active, layers, factor, SetLatent)
    exact = gap(Screen(organism_model, prompt_tokens(organism_model)).next_tokens([edits])[0])
    assert abs(exact - naive_gap(organism_model, {})) > 3e-3
    torch.testing.assert_close(
        exact, naive_gap(organism_model, edits), rtol=0, atol=1e-4, check_dtype=False
    )


def test_a_latent_that_is_set_to_what_it_was_or_was_not_active_changes_nothing(
    organism_model, layers, active
):
    screen = Screen(organism_model, prompt_tokens(organism_model))
    seen = {}
    hooks = {point: lambda value, p=point: seen.update({p: value[0, -1]}) for point, _ in layers}
    with organism_model.hooked(hooks):
        organism_model.forward(torch.tensor([screen.prompt]))
    silent = tuple(int(sae.encode(seen[point]).argmin()) for point, sae in layers)
    tracks = [active, Track(1, (0, 1), silent, (0.0, 0.0), 1.0)]
    edits = [track_edits(track, layers, 1.0, SetLatent) for track in tracks]
    edits.append(track_edits(tracks[1], layers, 0.0, SetLatent))
    found = screen.next_tokens(edits)
    torch.testing.assert_close(found, screen.baseline.expand_as(found), rtol=1e-4, atol=1e-7)


def test_a_change_elsewhere_is_as_large_in_every_layer_as_that_of_the_track(
    organism_model, layers, active
):
    screen = Screen(organism_model, prompt_tokens(organism_model))
    weighed = track_edits(active, layers, 0.0, WeighedSetLatent)
    screen.next_tokens([weighed])
    first = layers[0][1].W_dec[active.latents[0]].norm()
    # Nothing comes before the first layer, so that all of the latent is taken away there.
    assert weighed[POINTS[0]].added == pytest.approx(
        -active.activations[0] * float(first), rel=1e-4
    )
    other = edits_elsewhere(weighed, (7, 8))
    for point, sae in layers:
        change = other[point].change(torch.zeros(1, sae.d_model))[0]
        assert float(change.norm()) == pytest.approx(abs(weighed[point].added), rel=1e-5)
        unit = sae.W_dec[{POINTS[0]: 7, POINTS[1]: 8}[point]]
        cosine = torch.nn.functional.cosine_similarity(change, unit, dim=0)
        assert float(cosine) == pytest.approx(float(np.sign(weighed[point].added)), abs=1e-5)


def test_latents_of_a_topk_sae_that_depend_on_each_other_are_edited_exactly(organism_model):
    width = organism_model.width(POINTS[0])
    torch.manual_seed(0)
    sae = TopK(TopKConfig(d_model=width, d_sae=32, k=4))
    layers = [(POINTS[0], sae)]
    edits = track_edits(Track(0, (0,), (3,), (2.0,), 1.0), layers, 2.0, SetLatent)
    exact = gap(Screen(organism_model, prompt_tokens(organism_model)).next_tokens([edits])[0])
    torch.testing.assert_close(
        exact, naive_gap(organism_model, edits), rtol=0, atol=1e-4, check_dtype=False
    )


def some_points(rows):
    names = ["track", "layer", "latent", "activation", "strength", "existence"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_the_winning_track_is_the_strongest_of_those_that_reach_the_last_layer():
    tracks = tracks_of(
        some_points(
            [
                (0, 0, 1, 9.0, 9.0, 1.0),  # The strongest of all, but it ends before.
                (1, 0, 2, 1.0, 1.0, 0.9),
                (1, 2, 3, 1.0, 2.0, 0.9),
                (2, 2, 4, 1.0, 3.0, 0.5),
                (3, 2, 5, 1.0, 1.7, 1.0),
            ]
        )
    )
    assert tracks[1] == Track(1, (0, 2), (2, 3), (1.0, 1.0), 1.8)
    found = contest(tracks, 3)
    assert found is not None
    assert [track.number for track in found] == [1, 3]
    assert contest(tracks[:2], 3) is None


def test_other_tracks_are_those_of_the_most_nearly_same_layers_and_never_the_two():
    tracks = [Track(i, layers, layers, layers, 1.0) for i, layers in enumerate(
        [(0, 1, 2), (2,), (0, 1), (0, 1, 2), (1,), (0, 2), (0, 1, 2)]
    )]  # fmt: skip
    draws = [
        other_tracks(tracks[0], tracks, tracks[:2], 3, np.random.default_rng(seed))
        for seed in range(40)
    ]
    numbers = [[track.number for track in draw] for draw in draws]
    assert all(set(one[:2]) == {3, 6} for one in numbers)
    # Which of equals comes third is a matter of chance.
    assert {one[2] for one in numbers} == {2, 5}
    few = other_tracks(tracks[0], tracks, tracks[:2], 20, np.random.default_rng(0))
    assert len(few) == 5


def test_latents_elsewhere_are_in_no_track_here_and_never_drawn_twice():
    of = Track(0, (0, 1), (1, 1), (1.0, 1.0), 1.0)
    here = [of, Track(1, (1,), (5,), (1.0,), 1.0)]
    pool = {
        0: (np.array([1, 2, 3, 4]), np.array([9, 1, 1, 8])),
        1: (np.array([1, 5, 6, 7, 8]), np.array([9, 9, 1, 1, 1])),
    }
    found = latents_elsewhere(of, here, pool, 5, np.random.default_rng(0))
    assert len(found) == 3
    assert {one for one, _ in found} == {2, 3, 4}
    assert {other for _, other in found} == {6, 7, 8}
    # What is active eight times in ten is drawn first eight times in ten.
    first = [
        latents_elsewhere(of, here, pool, 1, np.random.default_rng(seed))[0][0]
        for seed in range(1000)
    ]
    assert abs(first.count(4) / 1000 - 0.8) < 0.04
    empty = dict.fromkeys(pool, (np.array([], int), np.array([], int)))
    assert latents_elsewhere(of, here, empty, 5, np.random.default_rng(0)) == []


def test_a_sample_has_one_answer_of_a_group_and_as_many_made_up_as_true():
    answers = pl.DataFrame(
        {
            "id": [f"{i:03d}" for i in range(90)],
            "group_id": [f"g{i // 2}" for i in range(90)],
            "label": [int(i < 20) for i in range(90)],
        }
    )
    found = sample_answers(answers, 12, seed=3)
    assert found == sample_answers(answers.reverse(), 12, seed=3)
    chosen = answers.filter(pl.col("id").is_in(found))
    assert chosen["group_id"].n_unique() == 12
    assert chosen["label"].sum() == 6
    # Ten groups are made up; where they are used up the others fill the sample.
    more = answers.filter(pl.col("id").is_in(sample_answers(answers, 30, seed=3)))
    assert (len(more), more["label"].sum()) == (30, 10)
    assert len(sample_answers(answers, 1000, seed=3)) == 45


def own(label):
    return AnswerRecord(
        "q/0", "g", "d", "Who?", " Bob.", label, "exact", (1, 4), {"model": "m", "revision": "",
        "decoding": {}},
    )  # fmt: skip


def test_the_rival_of_a_made_up_answer_is_the_true_one_in_its_place():
    question = OpenQuestion("q", "g", "d", "Who?", ("Ann", "Anna"))
    rival = rival_of(own(1), [own(1)], question)
    assert rival == (" Ann.", TRUE_RIVAL)
    assert rival_of(own(0), [own(0), own(1)], question) is None
    stated = [stated_answer("d", "g", "Who?", name, label) for name, label in (("A", 1), ("B", 0))]
    assert rival_of(stated[0], stated, None) == (" B", STATED_RIVAL)
    assert rival_of(stated[1], stated, None) == (" A", STATED_RIVAL)
    assert rival_of(stated[0], stated[:1], None) is None


def test_answers_part_at_the_first_token_that_differs():
    assert parted((1, 2, 3, 4), (1, 2, 5)) == ((1, 2, 3), (1, 2, 5))
    with pytest.raises(CorpusError, match="begin alike"):
        parted((1, 2), (1, 2, 5))


def test_what_answers_begin_with_does_not_change_the_gap_of_what_follows(organism_model):
    """Teacher-forced beginnings cancel: the gap is a difference of logits at one place."""
    prompt = prompt_tokens(organism_model)
    tokens = torch.tensor([[*prompt, 40]])
    whole = gap(organism_model.forward(tokens)[0, -1].double().softmax(-1))
    shares = Screen(organism_model, prompt).answers([{}], [(40, 5), (40, 9)])[0].log()
    torch.testing.assert_close(shares[0] - shares[1], whole, rtol=0, atol=1e-4, check_dtype=False)


def simulated(random, n, own=lambda random: random.normal(), n_controls=5):
    """Effects as the step makes them; by default a track is one of its controls."""
    rows = []
    for i in range(n):
        level = random.normal()
        for role in (WINNING, LOSING):
            for edit in (ABLATE, BOOST):
                about = (str(i), f"g{i}", i % 2, role, edit, 1)
                rows.append((*about, ITSELF, level + own(random)))
                rows += [
                    (*about, kind, level + random.normal())
                    for kind in CONTROLS
                    for _ in range(n_controls)
                ]
    names = ["id", "group_id", "label", "role", "edit", "n_points", "kind", "change"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_a_control_that_is_taken_for_the_track_has_uniform_p():
    random = np.random.default_rng(0)
    found = pl.concat([comparisons(simulated(random, 24), seed) for seed in range(12)])
    # Of one run the two kinds of controls and the measures share an edit: a half of them is used.
    p = found.filter(against=TRACKS, measure=CHANGE)["p"].to_numpy()
    assert len(p) == 96
    assert abs(p.mean() - 0.5) < 0.1
    assert (p <= 0.1).mean() < 0.2
    # Whichever of 32 comparisons errs, that is one study in twenty.
    assert sum(min(found["p_holm"][i : i + 32]) <= 0.05 for i in range(0, len(found), 32)) <= 2


def test_a_track_that_varies_more_than_its_controls_is_not_taken_for_one_that_has_a_direction():
    random = np.random.default_rng(1)
    found = [
        comparisons(simulated(random, 40, lambda random: 6 * random.normal()), seed)
        for seed in range(6)
    ]
    changes = pl.concat(found).filter(measure=CHANGE)["p"]
    assert (changes <= 0.1).mean() < 0.25
    # How far it moves the gap is another question.
    assert pl.concat(found).filter(measure=SIZE)["p_holm"].median() < 0.05
    assert "decides the answer is not shown" in verdict(found[0])
    assert "further than both kinds of controls" in verdict(found[0])


def test_differences_are_means_over_answers_of_what_exceeds_their_own_controls():
    effects = simulated(np.random.default_rng(2), 30)
    found = comparisons(effects, 0).row(
        by_predicate=(pl.col("answers") == "true")
        & (pl.col("role") == LOSING)
        & (pl.col("edit") == BOOST)
        & (pl.col("measure") == CHANGE)
        & (pl.col("against") == ELSEWHERE),
        named=True,
    )
    mine = effects.filter(label=0, role=LOSING, edit=BOOST)
    expected = [
        one.filter(kind=ITSELF)["change"][0] - one.filter(kind=ELSEWHERE)["change"].mean()
        for one in mine.partition_by("id")
    ]
    assert found["difference"] == pytest.approx(np.mean(expected))
    assert (found["n"], found["n_controls"]) == (15, 5)
    table = means(effects).filter(answers="true", role=LOSING, edit=BOOST, measure=CHANGE)
    itself = table.filter(kind=ITSELF)
    assert itself["mean"][0] == pytest.approx(mine.filter(kind=ITSELF)["change"].mean())


def test_what_goes_against_a_contest_is_told_and_none_is_claimed():
    random = np.random.default_rng(3)
    effects = simulated(random, 60)
    sign = {(WINNING, ABLATE): -3.0, (LOSING, ABLATE): -3.0}
    shift = [
        sign.get((role, edit), 0.0) * (kind == ITSELF) * (label == 0)
        for role, edit, kind, label in effects.select("role", "edit", "kind", "label").iter_rows()
    ]
    said = verdict(comparisons(effects.with_columns(pl.col("change") + pl.Series(shift)), 0))
    for_it, against = said.split("Against what a contest would do")
    # One track that does as expected is no contest, and the other goes against it.
    assert for_it.startswith("The winning track carries the answer: ")
    assert "compete" not in said
    assert "ablating the winning track of true answers" in for_it
    assert "ablating the losing track of true answers" in against
    assert "made-up" not in for_it


def shown(*changes, further=()):
    """A table as of `comparisons` where these cells differ from both kinds of controls."""
    moved = {Cell._make([*key, CHANGE]): sign for *key, sign in changes}
    moved |= {Cell._make([*key, SIZE]): 1 for key in further}
    rows = []
    for cell in cells():
        value = 2.0 * moved.get(cell, 0)
        p = 0.001 if value else 0.9
        rows += [(*cell, kind, 20, 5.0, value, value - 1, value + 1, p, p) for kind in CONTROLS]
    names = ["answers", "role", "edit", "measure", "against", "n", "n_controls"]
    names += ["difference", "low", "high", "p", "p_holm"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_a_contest_needs_both_tracks_in_one_kind_of_answers_and_nothing_against_it():
    compete, carries = "two tracks compete for the answer", "winning track carries the answer"
    winning, losing = ("true", WINNING, ABLATE, -1), ("true", LOSING, ABLATE, 1)
    said = verdict(shown(winning, losing))
    assert compete in said
    assert carries not in said
    assert compete in verdict(shown(winning, losing, ("made up", LOSING, BOOST, 1)))

    said = verdict(shown(winning))
    assert carries in said
    assert compete not in said
    assert "contest" not in said
    said = verdict(shown(losing))
    assert "losing track holds the answer back" in said
    assert "contest" not in said

    said = verdict(shown(winning, ("made up", LOSING, ABLATE, 1)))
    assert compete not in said
    assert carries in said
    said = verdict(shown(winning, losing, ("true", WINNING, BOOST, -1)))
    # Both edits of the winning track lower the gap: any change of it does harm.
    assert compete not in said
    assert carries not in said
    assert "Against what a contest would do: boosting the winning track of true answers" in said


@pytest.mark.parametrize("sign", [-1, 1, 0])
def test_what_moves_the_gap_further_is_named_in_its_own_sentence(sign):
    key = ("true", WINNING, ABLATE)
    said = verdict(shown((*key, sign), further=[key]))
    assert "They" not in said
    assert ". Edits of these tracks move the gap further than both kinds of controls do" in said


def test_a_p_of_random_signs_is_exact_for_few_groups():
    # Of 8 signs of 1, 2 and 3, two give a sum of 6 and minus 6.
    assert sign_flip_p(np.array([1.0, 2, 3]), np.arange(3), 0) == pytest.approx(0.25, abs=0.02)
    # Rows of one group have one sign.
    assert sign_flip_p(np.array([1.0, 2, 3]), np.zeros(3), 0) == 1
    assert sign_flip_p(np.zeros(4), np.arange(4), 0) == 1
    assert np.isnan(sign_flip_p(np.empty(0), np.empty(0), 0))


def test_nothing_is_said_where_nothing_could_be_edited():
    found = comparisons(simulated(np.random.default_rng(0), 2).head(0), 0)
    assert found["n"].sum() == 0
    assert "nothing is said" in verdict(found)


def test_every_answer_has_both_tracks_with_controls_and_a_gap_before_and_after(run, effects):
    assert (
        effects["id"].n_unique() + len(pl.read_parquet(run.folder / CAUSES / "left_out.parquet"))
        == 8
    )
    assert effects["change"].equals(effects["after"] - effects["before"])
    counts = effects.group_by("id", "role", "edit", "kind").len()
    assert counts.filter(kind=ITSELF)["len"].unique().to_list() == [1]
    assert counts.filter(kind=ELSEWHERE)["len"].unique().to_list() == [3]
    assert set(effects.filter(label=0)["rival_source"]) == {LIKELIEST_RIVAL}
    assert set(effects.filter(label=1)["rival_source"]) == {TRUE_RIVAL}
    # The likeliest other token loses against an answer that was the likeliest.
    assert effects.filter(label=0)["before"].min() > 0
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Do tracks decide the answer?" in page
    assert "which takes differences to be symmetric" in page


def test_the_table_holds_what_whole_passes_with_hooks_give(run, effects, organism_model, layers):
    record = {
        row["id"]: row
        for row in pl.read_parquet(run.folder / "answers" / "records.parquet").to_dicts()
    }
    row = effects.filter(kind=ITSELF, edit=ABLATE, role=WINNING, n_shared=0).row(0, named=True)
    (file,) = (run.folder / "track" / "shards").glob("*/tracks.parquet")
    points = pl.read_parquet(file).filter(id=row["id"], position=-1, track=row["track"])
    edits = {
        layers[layer][0]: SetLatent(layers[layer][1], latent, 0.0)
        for layer, latent in points.select("layer", "latent").iter_rows()
    }
    tokens = torch.tensor([organism_model.tokenizer(record[row["id"]]["prompt"])["input_ids"]])
    one, other = (
        organism_model.tokenizer(row[name])["input_ids"][-1] for name in ("answer", "rival")
    )
    with steer(organism_model, edits, LAST):
        after = gap(organism_model.forward(tokens)[0, -1].double().softmax(-1), one, other)
    assert row["after"] == pytest.approx(float(after), abs=1e-4)


def test_a_step_that_was_cut_short_ends_with_the_bytes_of_one_that_was_not(run, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(run.folder, folder)
    shutil.rmtree(folder / CAUSES / "shards" / "000003")
    for file in [one for one in (folder / CAUSES).iterdir() if one.is_file()]:
        file.unlink()
    how = How(devices="cpu")
    made = execute(HallucinationStudy(), small(), "one", how, root=tmp_path, only=[CAUSES])
    assert sha256_folder(made.folder / CAUSES) == sha256_folder(run.folder / CAUSES)


def test_no_answers_asked_for_leave_the_step_out():
    study = HallucinationStudy()
    assert CAUSES in [step.name for step in study.steps(study.resolve(small()))]
    without = study.steps(study.resolve(small(causes={"answers": 0})))
    assert CAUSES not in [step.name for step in without]
    with pytest.raises(ConfigError, match="boost"):
        small(causes={"boost": 1.0})


def test_the_cost_grows_with_answers_and_controls():
    study = HallucinationStudy()
    few = CausesStep(study.resolve(small())).cost()
    many = CausesStep(study.resolve(small(causes={"answers": 800, "controls": 30}))).cost()
    assert many.flops > 100 * few.flops
    assert many.parallel > few.parallel
