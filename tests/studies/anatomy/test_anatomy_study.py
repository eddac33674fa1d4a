"""The whole study on a tiny model: what its steps leave, and what its report says."""

import numpy as np
import polars as pl
import pytest
from small_anatomy import CONTEXT, D_SAE, saved_saes, small_model, small_spec

from fluoroscope.core.errors import ConfigError, CorpusError, UserError
from fluoroscope.core.sink import SILENT
from fluoroscope.core.storage import sha256_folder
from fluoroscope.data.token_store import TokenStore
from fluoroscope.features.statistics import TEXT, Layout
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.step import ShardContext
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.slices import TextSlice
from fluoroscope.studies.anatomy.steps.losses import LossesStep
from fluoroscope.studies.anatomy.steps.match import load_pair
from fluoroscope.studies.anatomy.steps.portraits import load_portraits
from fluoroscope.studies.anatomy.steps.read import ReadStep, read_columns, reading_text
from fluoroscope.studies.anatomy.study import AnatomyStudy

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("anatomy")


def executed(folder, name="run", how=None, **settings):
    spec = small_spec(folder, **settings)
    return execute(AnatomyStudy(), spec, name, how or How(devices="cpu"), root=folder / "runs")


@pytest.fixture(scope="module")
def run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return executed(folder)


def table(run, name):
    return pl.read_csv(run.folder / "tables" / f"{name}.csv")


def test_every_figure_and_table_of_the_issue_is_in_the_report(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    for number in (*range(1, 16), 16, 17, 19):
        assert f"F{number}." in page, f"figure F{number} is missing"
    for name in ("matching", "quality_by_layer", "ablations", "slices", "cross"):
        assert (run.folder / "tables" / f"{name}.csv").exists()


def test_the_model_passes_once_over_a_sequence_for_all_layers(run, folder, monkeypatch):
    """In the step that reads: as many passes as sequences, whatever the number of layers."""
    passes = []
    own = LanguageModel.forward
    monkeypatch.setattr(
        LanguageModel, "forward", lambda *args: passes.append(len(args[1])) or own(*args)
    )
    step, n_shards = ReadStep(run.config), 0
    for shard in step.shards(run):
        target = folder / "again" / shard.key
        step.work(run, shard, ShardContext(target, SILENT, "cpu"))
        n_shards += 1
    assert n_shards > len(run.config.readings)
    # Two slices, and three ablations of the first, of 12 sequences each; two layers have an SAE.
    assert passes == [1] * 12 * 5


def test_a_latent_that_cannot_be_active_is_dead_in_every_reading(run):
    found = Findings(run, run.config)
    for look in found.looks.values():
        for moments in look.moments():
            assert moments.count[3] == 0
            assert np.isfinite(moments.quantiles).all()


def test_counts_of_positions_and_of_latents_are_of_the_same_entries(run):
    found = Findings(run, run.config)
    for look in found.looks.values():
        for latents, positions in zip(look.latents, look.positions, strict=True):
            assert latents["every/count"].sum() == positions["count"].sum()


def test_positions_go_to_the_end_of_the_context(run):
    found = Findings(run, run.config)
    assert all(len(one) == CONTEXT for one in found.clean.position("mean"))


def test_the_two_slices_are_the_first_and_the_last_windows(run):
    first, last = (reading_text(run, run.config, reading) for reading in run.config.readings[:2])
    n = first.tokens.n_windows("train")
    assert first.windows.tolist() == list(range(12))
    assert last.windows.tolist() == list(range(n - 12, n))


def test_a_latent_has_all_its_activations_in_its_portrait(run):
    point = run.config.points[0]
    reading = run.config.readings[0]
    chosen, arrays = load_portraits(run, point)
    columns = read_columns(run, run.config, reading, point)
    text = reading_text(run, run.config, reading).layout.counted(TEXT).ravel()
    for row, one in enumerate(chosen):
        tokens, values = columns.latent(one["latent"])
        np.testing.assert_array_equal(arrays[f"first/values/{row}"], values[text[tokens]])


def test_another_seed_shares_little_more_than_chance_and_an_sae_all_with_itself(run):
    row, cosines = load_pair(run, run.config, "other", run.config.points[0])
    assert row["latents_a"] == D_SAE
    assert cosines["decoder_a_to_b"].shape == (D_SAE, 4)
    own = table(run, "matching_in_full")
    assert own.height == 2
    assert {"random_a_to_b", "decoder_rotated_a_to_b", "decoder_own_a"} <= set(own.columns)


def test_an_sae_matched_with_itself_shares_every_latent(folder):
    run = executed(
        folder,
        "itself",
        ablations=[],
        slices=["first"],
        match={"others": {"copy": str(folder / "saes")}, "draws": 1},
    )
    for point in run.config.points:
        row, _ = load_pair(run, run.config, "copy", point)
        for name in ("decoder_shared_a_to_b", "paired_one_to_one", "encoder_one_to_one"):
            assert row[name] == 1.0


def test_results_do_not_depend_on_how_sequences_are_dealt_out(run, folder):
    other = executed(folder, "dealt", read={"sequences_per_shard": 12, "memory_mb": 1})
    for name in ("statistics", "losses", "portraits", "cross", "match", "map"):
        own, theirs = (sha256_folder(one.folder / name) for one in (run, other))
        results = {
            file: sha
            for file, sha in own.items()
            # Records of work name their inputs, and losses are kept in shards of as many sequences.
            if file.rpartition("/")[2] not in ("done.json", "shard.json")
            and not (name == "losses" and file.startswith("shards"))
        }
        assert results
        assert all(theirs[file] == sha for file, sha in results.items()), name


def test_the_paired_difference_of_an_ablation_is_that_of_the_means(run):
    rows = {row["reading"]: row for row in table(run, "ablations").iter_rows(named=True)}
    clean = rows["clean"]
    assert clean["ce_difference"] is None
    for name in ("position embeddings zeroed", "SAEs spliced in"):
        expected = rows[name]["ce"] - clean["ce"]
        assert rows[name]["ce_difference"] == pytest.approx(expected)


def test_slices_that_would_overlap_are_cut_to_halves(folder):
    settings = {"losses": {"n_sequences": 1}, "match": {"every_layer": False}}
    run = executed(folder, "halves", n_sequences=1000, ablations=[], **settings)
    first, last = (reading_text(run, run.config, reading) for reading in run.config.readings)
    assert len(first) == len(last) > 0
    assert not set(first.windows) & set(last.windows)


def test_a_model_that_predicts_nothing_has_no_losses(folder):
    config = AnatomyStudy().resolve(small_spec(folder / "encoder", family="bert"))
    steps = AnatomyStudy().steps(config)
    assert not any(isinstance(step, LossesStep) for step in steps)


def test_positions_that_cannot_be_taken_away_are_refused_before_anything_is_read(folder):
    with pytest.raises(ConfigError, match=r"give ablations=\[reconstructed\]"):
        AnatomyStudy().resolve(small_spec(folder / "relative", family="deberta"))


def test_saes_without_a_common_hook_point_are_refused(folder):
    saved_saes(folder / "elsewhere", small_model(), points=("1.mlp_out",))
    others = {"others": {"other": str(folder / "elsewhere")}}
    with pytest.raises(ConfigError, match="there is nothing to match"):
        AnatomyStudy().resolve(small_spec(folder, match=others))


def text_slice(document):
    document = np.array(document)
    layout = Layout(document >= 0, document >= 0)
    return TextSlice(
        object.__new__(TokenStore), "train", np.arange(len(document)), layout, document
    )


def test_blocks_are_no_shorter_than_the_longest_document_and_40_at_most():
    packed = text_slice(
        [[0, 0, 1], [1, 1, 1], [1, 1, 2], [3, 4, 5], [6, -1, 7], [8, 8, 8], [9, 9, 9]]
    )
    # Document 1 runs over three sequences; the seventh is left over.
    assert packed.block[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert packed.block[4].tolist() == [1, -1, 1]
    single = text_slice(np.repeat(np.arange(100)[:, None], 2, axis=1))
    assert len(np.unique(single.block)) == 33
    assert text_slice([[-1, -1]]).block.tolist() == [[-1, -1]]


def test_slices_of_single_documents_are_in_the_order_of_the_text(folder):
    corpus = {"source": str(folder / "text.txt"), "context": CONTEXT, "pack": False}
    settings = {"losses": {"n_sequences": 1}, "match": {"every_layer": False}}
    run = executed(folder, "single", corpus=corpus, ablations=[], **settings)
    first, last = (reading_text(run, run.config, reading) for reading in run.config.readings)
    documents = [
        [int(one.tokens.windows("train", at, at + 1).document[0, 0]) for at in one.windows.tolist()]
        for one in (first, last)
    ]
    assert documents[0] == sorted(documents[0])
    assert documents[0][0] == 0
    assert max(documents[0]) <= min(documents[1])


WRONG = [
    ({"n_sequences": 0}, "n_sequences"),
    ({"slices": []}, "slices"),
    ({"slices": ["first", "first"]}, "names something twice"),
    ({"ablations": ["positions"]}, "positions_removed"),
    ({"shown": {"latents": {"1.resid_post": [0]}}}, "where no SAE is looked at"),
    ({"shown": {"latents": {"0.resid_post": [D_SAE]}}}, f"latent {D_SAE}; the SAE has 0 to"),
    ({"match": {"others": {"a/b": "x"}}}, "becomes a file name"),
    ({"match": {"others": {"given": "saes"}}}, "which is a set already"),
    ({"sae": "x"}, "Did you mean 'saes'"),
    ({"cross": {"corpora": {"corpus": "text.txt"}}}, "is how the report calls corpus"),
]


@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_wrong_settings_are_named_before_anything_is_read(folder, settings, words, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=words):
        AnatomyStudy().resolve(small_spec(folder, **settings))


def trained_spec(folder, **settings):
    sae = {"architecture": "topk", "d_sae": 32, "k": 4, "seed": [0, 1]}
    train = {
        "n_tokens": 2000,
        "sae": sae,
        "hook_points": "1.resid_post",
        "training": {"batch_size": 64},
        "evaluation": {"n_tokens": 200, "cards": 1, "contexts": 1},
    }
    corpus = {"source": str(folder / "text.txt"), "context": CONTEXT, "held_out": 0.5}
    base = {"saes": None, "corpus": corpus, "train": train, "match": {"draws": 1}}
    return small_spec(folder, **{**base, **settings})


def test_saes_that_are_trained_here_are_read_on_documents_that_they_never_saw(folder):
    spec = trained_spec(folder, ablations=[], slices=["first"], losses={"n_sequences": 2})
    run = execute(AnatomyStudy(), spec, "trained", How(devices="cpu"), root=folder / "runs")
    config = run.config
    assert config.set_names == ["seed0", "seed1"]
    assert config.split_of("") == "test"
    seen, read = (TokenStore(run.step_folder(step)) for step in ("tokens", "texts"))
    text = reading_text(run, config, config.readings[0])
    ids = {store.folder: store.documents() for store in (seen, read)}
    trained = ids[seen.folder].filter(pl.col("split") == "train")["id"]
    own = {
        document
        for at in text.windows.tolist()
        for document in read.windows("test", at, at + 1).document.unique().tolist()
    }
    looked_at = ids[read.folder].filter(pl.col("document").is_in(own))["id"]
    assert looked_at.len() > 0
    assert not set(trained) & set(looked_at)
    row, _ = load_pair(run, config, "seed1", config.points[0])
    assert row["latents_b"] == 32


def test_a_text_that_is_cut_in_another_way_than_in_training_is_refused(folder):
    spec = trained_spec(folder)
    other = spec.train.corpus.model_copy(update={"split_documents_on": "blank_line"})
    train = spec.train.model_copy(update={"corpus": other})
    with pytest.raises(ConfigError, match="make other documents of the same text"):
        AnatomyStudy().resolve(spec.model_copy(update={"train": train}))


def test_a_context_beyond_the_models_is_refused(folder):
    corpus = {"source": str(folder / "text.txt"), "context": 4096}
    with pytest.raises(ConfigError, match=r"corpus\.context=4096 is longer than"):
        AnatomyStudy().resolve(small_spec(folder, corpus=corpus))


def test_a_text_of_one_window_is_too_few_for_two_slices(folder):
    (folder / "short.txt").write_text("a few words", encoding="utf-8")
    corpus = {"source": str(folder / "short.txt"), "context": CONTEXT}
    with pytest.raises(CorpusError, match="too few for 2 slices"):
        executed(folder, "short", corpus=corpus)
