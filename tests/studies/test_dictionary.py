"""The dictionary study from text to report, on a tiny random model."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from fluoroscope.core.config import build, parse_overrides
from fluoroscope.core.errors import (
    ConfigError,
    CorpusError,
    DamagedError,
    MismatchError,
    ModelError,
    RunError,
)
from fluoroscope.core.sink import SILENT
from fluoroscope.core.storage import sha256_folder
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.step import ShardContext
from fluoroscope.sae.formats.native import load_sae, sidecar_of
from fluoroscope.steps.models import load_model
from fluoroscope.steps.sae_training import sae_plans
from fluoroscope.steps.sae_training_spec import SAESpec
from fluoroscope.steps.train_saes import sae_folder
from fluoroscope.studies.dictionary.spec import DictionarySpec
from fluoroscope.studies.dictionary.study import DictionaryStudy

pytestmark = pytest.mark.long

SMALL = (
    "n_tokens=3000",
    "sae.d_sae=24",
    "sae.k=4",
    "training.batch_size=128",
    "corpus.context=16",
    "corpus.held_out=0.3",
    "corpus.split_documents_on=line",
    "evaluation.n_tokens=400",
    "evaluation.cards=2",
)


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    for family in ("llama", "bert"):
        model = tiny_model(family)
        model.network.save_pretrained(folder / family)
        model.tokenizer.save_pretrained(folder / family)
    words = ["the cat", "a dog", "my bird", "his fish"], ["sat", "ran", "sang", "swam"]
    lines = [f"{i} {words[0][i % 4]} {words[1][(i // 3) % 4]} {i * i}." for i in range(200)]
    (folder / "text.txt").write_text("\n".join(lines))
    return folder


def spec_of(material: Path, *settings: str, family: str = "llama") -> DictionarySpec:
    where = (f"model={material / family}", f"corpus={material / 'text.txt'}")
    return build(DictionarySpec, parse_overrides([*where, *SMALL, *settings]))


def run_study(material: Path, root: Path, *settings: str, how: How | None = None, **options):
    spec = spec_of(material, *settings, **options)
    return execute(DictionaryStudy(), spec, "small", how, root=root)


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    return run_study(material, tmp_path_factory.mktemp("finished"))


def results(folder: Path) -> dict[str, str]:
    """Hashes of what a run found: its SAEs, tables and figures."""
    files = sha256_folder(folder)
    kept = ("saes/", "quality/", "tables/", "figures/", "report.html")
    return {name: digest for name, digest in files.items() if name.startswith(kept)}


def test_every_layer_is_judged_in_the_table_with_the_promised_columns(finished):
    table = pl.read_csv(finished.folder / "tables" / "sae_quality.csv")
    assert table.columns[:9] == [
        "layer", "hook_point", "architecture", "d_sae", "fvu", "l0", "ce_recovered",
        "dead_fraction", "n_tokens",
    ]  # fmt: skip
    assert table["layer"].to_list() == [0, 1, 2]
    assert (table["n_tokens"] == 24 * 128).all()
    assert table["fvu"].is_between(table["fvu_low"], table["fvu_high"]).all()


def test_a_saved_sae_knows_its_model_and_hook_point(finished, material):
    from fluoroscope.models.language_model import LanguageModel

    folder = sae_folder(finished, "1.resid_post", "1.resid_post")
    sidecar = sidecar_of(folder)
    model = LanguageModel.load(str(material / "llama"))
    assert sidecar["hook_point"] == "1.resid_post"
    assert sidecar["provenance"]["model"] == model.identity.to_json()
    expect = {"model": model.identity.to_json(), "hook_point": "1.resid_post"}
    assert load_sae(folder, expect=expect).config.d_sae == 24


def test_the_report_stands_alone(finished):
    page = (finished.folder / "report.html").read_text()
    assert "Plotly" in page
    for outside in ("<script src", "<link ", '<img src="http', "@import"):
        assert outside not in page
    for latent_card in ("1.resid_post", "Latent "):
        assert latent_card in page


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_other_executors_end_with_the_same_bytes(finished, material, tmp_path, executor):
    if executor == "ray":
        pytest.importorskip("ray", reason="needs the ray extra")
    run = run_study(material, tmp_path, how=How(executor=executor, workers=2))
    assert results(run.folder) == results(finished.folder)


def test_a_stream_straight_from_the_model_gives_the_saes_of_a_store(finished, material, tmp_path):
    run = run_study(material, tmp_path, "activations=stream", "hook_points_per_loop=1")
    assert not (run.folder / "activations").exists()
    for layer in range(3):
        key = f"{layer}.resid_post"
        ours, theirs = sae_folder(run, key, key), sae_folder(finished, key, key)
        weights = "sae_weights.safetensors"
        assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()


def test_layers_trained_in_one_loop_are_the_layers_trained_apart(finished, material, tmp_path):
    run = run_study(material, tmp_path, "hook_points_per_loop=2")
    together = sae_folder(run, "0.resid_post_to_1.resid_post", "1.resid_post")
    alone = sae_folder(finished, "1.resid_post", "1.resid_post")
    weights = "sae_weights.safetensors"
    assert (together / weights).read_bytes() == (alone / weights).read_bytes()


def test_a_sweep_trains_every_combination(material, tmp_path):
    run = run_study(material, tmp_path, "hook_points=1.mlp_out", "sae.k=[2,4]", "sae.seed=[0,1]")
    table = pl.read_csv(run.folder / "tables" / "sae_quality.csv")
    assert table["key"].to_list() == [
        "1.mlp_out-seed0-k2", "1.mlp_out-seed0-k4", "1.mlp_out-seed1-k2", "1.mlp_out-seed1-k4",
    ]  # fmt: skip
    l0 = dict(zip(table["key"], table["l0"], strict=True))
    assert l0["1.mlp_out-seed0-k2"] < l0["1.mlp_out-seed0-k4"]


@pytest.mark.parametrize("architecture", ["topk", "relu", "jumprelu"])
def test_every_architecture_goes_the_whole_way(material, tmp_path, architecture):
    own = {"topk": "sae.k=4", "relu": "sae.l1_coefficient=0.01", "jumprelu": "sae.target_l0=4"}
    settings = [s for s in SMALL if s != "sae.k=4"]
    where = (f"model={material / 'llama'}", f"corpus={material / 'text.txt'}")
    spec = build(
        DictionarySpec,
        parse_overrides(
            [
                *where,
                *settings,
                f"sae.architecture={architecture}",
                own[architecture],
                "hook_points=1.resid_post",
            ]
        ),
    )
    run = execute(DictionaryStudy(), spec, "small", root=tmp_path)
    table = pl.read_csv(run.folder / "tables" / "sae_quality.csv")
    assert table["architecture"].to_list() == [architecture]


def test_an_encoder_is_judged_without_cross_entropies(material, tmp_path):
    run = run_study(material, tmp_path, "hook_points=1.resid_post", family="bert")
    table = pl.read_csv(run.folder / "tables" / "sae_quality.csv")
    assert table["ce_recovered"].null_count() == 1
    assert table["fvu"].null_count() == 0


def test_text_sampled_from_the_model_is_a_corpus(material, tmp_path):
    run = run_study(
        material, tmp_path, "corpus.source=model:", "corpus.sampled.max_tokens=24",
        "n_tokens=1500", "hook_points=1.resid_post",
    )  # fmt: skip
    assert pl.read_csv(run.folder / "tables" / "sae_quality.csv")["fvu"][0] < 1


def test_a_damaged_shard_is_named_and_nothing_is_built_on_it(finished, material, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "small")
    folder = tmp_path / "small"
    shutil.rmtree(folder / "saes")
    shard = next(iter(sorted((folder / "activations" / "shards").glob("train*/1.*"))))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedError, match=r"1\.resid_post\.safetensors"):
        run_study(material, tmp_path)


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("sae.kk=4", ConfigError, r"'sae\.kk' does not exist.*Did you mean 'k'"),
        ("sae.architecture=batchtopk", ConfigError, "Did you mean 'batch_topk'"),
        ("hook_points=7.resid_post", ModelError, "3 layers|0 to 2"),
        ("hook_points=1.resid_mid", ConfigError, "resid_mid"),
        ("corpus.context=4000", ConfigError, "longer than the 64"),
        ("corpus.held_out=0", ConfigError, "held_out must be above 0"),
        ("n_tokens=50", ConfigError, "less than one batch"),
        ("n_token=50", ConfigError, "Did you mean 'n_tokens'"),
        ("sae.k=40", ConfigError, "k=40 latents cannot be active out of d_sae=24"),
        ("sae.k=[4,4]", ConfigError, "same value twice"),
        ("corpus.take=first:0", ConfigError, "first"),
        ("corpus=nowhere.txt", CorpusError, "nowhere.txt"),
        ("model=nowhere/at-all/x", ModelError, "nowhere/at-all/x"),
    ],
)
def test_a_wrong_setting_is_named(material, tmp_path, setting, error, message):
    with pytest.raises(error, match=message):
        run_study(material, tmp_path, setting)


def test_a_changed_setting_under_the_same_name_is_refused_by_name(finished, material):
    with pytest.raises(RunError, match=r"n_tokens"):
        run_study(material, finished.folder.parent, "n_tokens=4000")


def test_one_sae_a_hook_point_is_called_by_the_hook_point():
    [plan] = sae_plans(SAESpec(), HookPoint("3.attn_out"), d_model=8)
    assert plan.key == "3.attn_out"
    assert json.loads(plan.model_dump_json())["settings"]["d_sae"] == 16 * 8


def test_a_stream_does_not_go_on_with_other_weights(material, tmp_path):
    shutil.copytree(material / "llama", tmp_path / "llama")
    settings = (f"model={tmp_path / 'llama'}", "activations=stream")
    loops = []
    for seed in (0, 1):
        tiny_model("llama", seed).network.save_pretrained(tmp_path / "llama")
        config = DictionaryStudy().resolve(spec_of(material, *settings))
        run = run_study(material, tmp_path / str(seed), *settings)
        steps = {step.name: step for step in DictionaryStudy().steps(config)}
        [shard] = steps["saes"].shards(run)
        context = ShardContext(tmp_path, SILENT, "cpu")
        loops.append(steps["saes"].loop(run, shard, context))
    loops[0].load(loops[0].state())
    with pytest.raises(MismatchError, match="activations of the model"):
        loops[1].load(loops[0].state())


def test_a_sweep_over_nothing_is_refused(material):
    with pytest.raises(ConfigError, match=r"sae\.k=\[\] names no value"):
        DictionaryStudy().resolve(spec_of(material, "sae.k=[]"))


def test_what_cannot_be_measured_is_left_empty_and_passes_no_gate(material, tmp_path):
    # With two tokens a window the only token that is scored follows the start token, which no
    # SAE replaces: there is no cross-entropy to recover.
    run = run_study(material, tmp_path, "corpus.context=2", "hook_points=2.resid_post")
    table = pl.read_csv(run.folder / "tables" / "sae_quality.csv")
    assert table["ce_recovered"].null_count() == 1
    gates = pl.read_csv(run.folder / "tables" / "gates.csv")
    assert not gates.filter(pl.col("name") == "ce_recovered")["passed"][0]


@pytest.mark.parametrize(
    ("exchanged", "file"),
    [
        ("model", "llama/model.safetensors"),
        ("model", "llama/config.json"),
        ("model", "llama/tokenizer.json"),
        ("model", "llama/special_tokens_map.json"),
        ("corpus", "text.txt"),
    ],
)
def test_a_finished_run_is_not_taken_for_one_of_what_took_its_sources_place(
    finished, material, tmp_path, exchanged, file
):
    shutil.copytree(finished.folder, tmp_path / "small")
    shutil.copytree(material, tmp_path / "material")
    other = tmp_path / "material" / file
    content = bytearray(other.read_bytes()) if other.exists() else bytearray(b"{}")
    content[-1:] = b" " + content[-1:]
    other.write_bytes(content)
    spec = spec_of(material)
    config = DictionaryStudy().resolve(spec)
    moved = DictionaryStudy().resolve(spec_of(tmp_path / "material"))
    before, after = DictionaryStudy().sources(config), DictionaryStudy().sources(moved)
    assert {name for name in before if before[name] != after[name]} == {exchanged}
    record = json.loads((tmp_path / "small" / "run.json").read_text())
    assert record["sources"] == before
    (tmp_path / "small" / "run.json").write_text(json.dumps({**record, "sources": after}))
    with pytest.raises(RunError, match=f"started with another {exchanged} than"):
        run_study(material, tmp_path)


def test_a_run_from_before_sources_were_noted_goes_on(finished, material, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "small")
    record = json.loads((tmp_path / "small" / "run.json").read_text())
    sources = record.pop("sources")
    (tmp_path / "small" / "run.json").write_text(json.dumps(record))
    assert run_study(material, tmp_path).sources == sources


def test_a_run_on_a_hub_model_stays_with_its_commit(finished, material, tmp_path, monkeypatch):
    shutil.copytree(finished.folder, tmp_path / "small")
    record = json.loads((tmp_path / "small" / "run.json").read_text())
    record["sources"]["model"] = "commit:of-then"
    (tmp_path / "small" / "run.json").write_text(json.dumps(record))
    run = run_study(material, tmp_path)
    assert run.sources["model"] == "commit:of-then"
    asked, load = [], LanguageModel.load

    def asked_for(name, *, revision, **rest):
        asked.append(revision)
        return load(name, **rest)

    monkeypatch.setattr(LanguageModel, "load", asked_for)
    load_model(run, run.config.model, "cpu")
    assert asked == ["of-then"]


@pytest.mark.parametrize(
    ("text", "message"),
    [(b" \n\n", "text.txt gives zero tokens"), (b"caf\xe9", "not UTF-8 text: byte 0xe9")],
)
def test_a_corpus_without_text_leaves_no_run_folder(material, tmp_path, text, message):
    (tmp_path / "text.txt").write_bytes(text)
    with pytest.raises(CorpusError, match=message):
        run_study(material, tmp_path, f"corpus={tmp_path / 'text.txt'}")
    assert not (tmp_path / "small").exists()


def test_a_model_without_a_tokenizer_leaves_no_run_folder(material, tmp_path):
    shutil.copytree(material / "llama", tmp_path / "llama")
    for file in (tmp_path / "llama").glob("token*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        run_study(material, tmp_path, f"model={tmp_path / 'llama'}")
    assert not (tmp_path / "small").exists()


def test_the_organisms_saes_are_judged_by_what_was_planted(tmp_path):
    spec = build(
        DictionarySpec,
        parse_overrides(
            [
                "model=organism",
                "corpus=organism:",
                "corpus.context=256",
                "corpus.pack=false",
                "corpus.held_out=0.3",
                "n_tokens=3000",
                'hook_points=["3.resid_post","1.mlp_out"]',
                "sae.d_sae=[16,24]",
                "sae.k=4",
                "training.batch_size=128",
                "evaluation.n_tokens=400",
                "evaluation.cards=0",
                "evaluation.truth_pairs=16",
            ]
        ),
    )
    run = execute(DictionaryStudy(), spec, "truth", root=tmp_path)
    truth = pl.read_csv(run.folder / "tables" / "ground_truth.csv")
    # Only the residual stream is what the directions live in.
    assert set(truth["key"]) == {"3.resid_post-d_sae16", "3.resid_post-d_sae24"}
    assert set(truth["chosen_by"]) == {"match", "cause", "random"}
    ceiling = pl.read_csv(run.folder / "tables" / "ceiling.csv")
    planted = ceiling.filter(pl.col("direction") == "planted")
    assert planted["is_cause"].all()
    assert (planted["effect_low"] > 0.5).all()
    assert (run.folder / "figures" / "truth_by_layer.png").exists()
    assert "Ground truth" in (run.folder / "report.html").read_text()
