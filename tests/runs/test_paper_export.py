"""An export says what the run found, of what is sure how sure, and is never half there."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from finished_runs import METHODS, finished_run
from toy_runs import run_toy

from fluoroscope.core.errors import ConfigError, DamagedError, RunError
from fluoroscope.core.storage import read_json, sha256_file, sha256_folder
from fluoroscope.runs.paper import export as exporting
from fluoroscope.runs.paper.document import document, with_caption
from fluoroscope.runs.paper.export import export_run
from fluoroscope.runs.paper.numbers import letters, macros
from fluoroscope.runs.run import DONE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent.parent / "exported"
    export_run(run, folder)
    return folder


def commands(folder: Path) -> dict[str, str]:
    text = (folder / "numbers.tex").read_text(encoding="utf-8")
    return dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", text))


def test_an_estimate_with_an_interval_has_a_macro_for_value_ends_and_all_in_words(exported):
    found = commands(exported)
    name = "FluoroToyMethodsAurocBaselineTracking"
    assert found[name] == "0.821"
    assert found[f"{name}Low"] == "0.755"
    assert found[f"{name}High"] == "0.890"
    assert found[f"{name}Interval"] == "0.821 (0.755 to 0.890)"
    assert found["FluoroToyMethodsChangeBaselineTracking"] == r"\ensuremath{-0.0213}"


def test_a_number_without_an_interval_has_no_macro_and_is_listed_as_refused(exported):
    found = commands(exported)
    assert not any("Brier" in name or "AurocNoneTold" in name for name in found)
    refused = pl.read_csv(exported / "refused.csv")
    rows = {(row["table"], row["column"]): row["n"] for row in refused.to_dicts()}
    assert rows == {
        ("methods", "auroc"): 1,
        ("methods", "brier"): 3,
        ("norms", "norm"): 2,
        ("", "bankrupt"): 1,
    }


def test_counts_p_values_settings_and_whole_facts_are_said_and_marked_as_such(exported):
    index = pl.read_csv(exported / "numbers.csv")
    kinds = dict(zip(index["macro"], index["kind"], strict=True))
    assert kinds[r"\FluoroToyMethodsNGroupsStyleLength"] == "count"
    assert kinds[r"\FluoroToyMethodsPBaselineTracking"] == "p"
    assert kinds[r"\FluoroToySettingNestedWidth"] == "setting"
    assert kinds[r"\FluoroToyFactGames"] == "fact"
    assert commands(exported)["FluoroToyFactGames"] == r"\ensuremath{1\,200}"
    estimates = index.filter(pl.col("kind") == "estimate")
    assert estimates.select(pl.col("low", "high").is_null().any()).row(0) == (False, False)


def test_the_index_holds_the_numbers_in_full(exported):
    index = pl.read_csv(exported / "numbers.csv").filter(pl.col("kind") == "estimate")
    row = index.filter(pl.col("macro") == r"\FluoroToyMethodsAurocStyleLength").to_dicts()[0]
    assert (row["value"], row["low"], row["high"]) == (0.5712, 0.5, 0.64)
    assert (row["table"], row["row"], row["column"]) == ("methods", "style & length", "auroc")


def test_names_of_macros_are_of_letters_and_each_its_own(exported):
    text = (exported / "numbers.tex").read_text(encoding="utf-8")
    names = re.findall(r"\\newcommand\{\\(.*?)\}", text)
    assert all(re.fullmatch("[A-Za-z]+", name) for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("baseline + tracking", "BaselineTracking"),
        ("2.resid_post", "TwoResidPost"),
        ("width 2.5", "WidthTwoPointFive"),
        ("set to -30", "SetToMinusThreeZero"),
        ("d_sae", "DSae"),
        ("cr\u00e8me", "Creme"),
        ("\u2581", ""),
    ],
)
def test_a_name_is_spelled_by_rule(text, name):
    assert letters(text) == name


def test_rows_whose_names_come_to_the_same_are_numbered_in_their_order():
    frame = pl.DataFrame(
        {
            "word": ["a b", "a+b", "a-b low", "a b"],
            "kind": ["x", "x", "x", "y"],
            "rate": [0.1, 0.2, 0.3, 0.4],
            "rate_low": [0.0, 0.1, 0.2, 0.3],
            "rate_high": [0.2, 0.3, 0.4, 0.5],
        }
    )
    found = macros("toy", {"t": frame}, {}, {}).numbers
    assert {name: number.value for name, number in found.items()} == {
        "FluoroToyTRateABX": 0.1,
        "FluoroToyTRateABXTwo": 0.2,
        "FluoroToyTRateABLowX": 0.3,
        "FluoroToyTRateABY": 0.4,
    }
    ends = macros("toy", {"t": frame.rename({"word": "kind", "kind": "word"})}, {}, {}).numbers
    assert len(ends) == 4


def test_the_end_of_one_number_is_not_taken_for_another_number():
    frame = pl.DataFrame(
        {"word": ["a", "a low"], "x": [0.1, 0.2], "x_low": [0.0, 0.1], "x_high": [0.2, 0.3]}
    )
    assert list(macros("s", {"t": frame}, {}, {}).numbers) == ["FluoroSTXA", "FluoroSTXALowTwo"]


def test_latex_is_balanced_escaped_and_says_how_to_set_unknown_letters(exported):
    for path in exported.rglob("*.tex"):
        text = re.sub(r"\\[{}\\%&_$#]", "", path.read_text(encoding="utf-8"))
        code = "\n".join(line.partition("%")[0] for line in text.splitlines())
        depth = 0
        for letter in code:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            assert depth >= 0, path
        assert depth == 0, path
        begun = re.findall(r"\\begin\{(\w+)\}", code)
        ended = re.findall(r"\\end\{(\w+)\}", code)
        assert sorted(begun) == sorted(ended), path
    paper = (exported / "paper.tex").read_text(encoding="utf-8")
    assert r"\title{Does it 100 \% work?}" in paper
    assert r"\caption{Loss at 50 \% \& more.}" in paper
    assert {r"\DeclareUnicodeCharacter{2581}{\texttt{U+2581}}"} <= {
        line.strip() for line in paper.splitlines()
    }
    assert "DeclareUnicodeCharacter{00E9}" not in paper


def test_the_document_takes_in_every_table_and_figure_each_with_a_caption(exported):
    paper = (exported / "paper.tex").read_text(encoding="utf-8")
    for name in ("methods", "words"):
        assert rf"\input{{tables/{name}.tex}}" in paper
        table = (exported / "tables" / f"{name}.tex").read_text(encoding="utf-8")
        assert table.count(r"\caption{") == 1
    assert r"{{figures/loss}.pdf}" in paper
    assert {path.name for path in (exported / "figures").iterdir()} == {"loss.pdf", "loss.png"}


def test_a_table_that_has_a_caption_keeps_it():
    assert with_caption(r"\caption{mine}", "name") == r"\caption{mine}"
    assert "  \\caption{A b.}" in with_caption("  \\centering\n", "a_b")


def test_a_table_too_long_for_a_page_is_named_and_not_taken_in():
    latex = "a \\\\\n" * 200
    text = document("t", "n", {"long": latex}, {}, "toy")
    assert "\n% \\input{tables/long.tex}" in text


def test_provenance_names_the_run_its_seeds_its_end_and_every_file(run, exported):
    about = read_json(exported / "provenance.json")
    assert (about["run"], about["study"], about["seeds"]) == ("one", "toy", {"seed": 0})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", about["finished"])
    assert about["versions"]["numpy"]
    there = sha256_folder(exported)
    assert there.pop("provenance.json")
    assert about["files"] == there
    assert str(run.parent) not in (exported / "provenance.json").read_text(encoding="utf-8")
    assert sha256_file(exported / "tables" / "methods.csv") in (
        exported / "PROVENANCE.md"
    ).read_text(encoding="utf-8")


def test_the_same_run_is_the_same_bytes_also_after_a_start_that_found_all_done(
    tmp_path, exported, run
):
    copy = tmp_path / "one"
    shutil.copytree(run, copy)
    with (copy / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "run started", "time": 99999999999}\n')
        file.write('{"event": "run finished", "time": 99999999999}\n')
    export_run(copy, tmp_path / "to")
    assert sha256_folder(tmp_path / "to") == sha256_folder(exported)


def test_an_export_may_take_the_place_of_an_earlier_one_with_what_tex_made_there(run, tmp_path):
    (tmp_path / "to").mkdir()
    export_run(run, tmp_path / "to")
    (tmp_path / "to" / "paper.aux").write_text("of TeX")
    export_run(run, tmp_path / "to")
    assert not (tmp_path / "to" / "paper.aux").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


@pytest.mark.parametrize("what", ["foreign", "changed", "added", "file"])
def test_nothing_is_written_over_that_is_not_an_untouched_export(run, tmp_path, what):
    to = tmp_path / "to"
    if what == "foreign":
        to.mkdir()
        (to / "thesis.tex").write_text("years of work")
    elif what == "file":
        to.write_text("a file")
    else:
        export_run(run, to)
        (to / ("paper.tex" if what == "changed" else "notes.txt")).write_text("mine")
    before = sha256_folder(tmp_path)
    with pytest.raises(ConfigError, match="that this command did not write|changed since|was not"
                       if what != "file" else "is a file"):  # fmt: skip
        export_run(run, to)
    assert sha256_folder(tmp_path) == before


def test_an_export_that_fails_leaves_the_earlier_one_and_nothing_else(run, tmp_path, monkeypatch):
    export_run(run, tmp_path / "to")
    before = sha256_folder(tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError("the power is cut")

    monkeypatch.setattr(exporting, "write_provenance", fail)
    with pytest.raises(OSError, match="power"):
        export_run(run, tmp_path / "to")
    with pytest.raises(OSError, match="power"):
        export_run(run, tmp_path / "new")
    assert sha256_folder(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_a_run_with_a_step_to_do_or_without_its_report_says_what_is_missing(run, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(run, part)
    (part / "walks" / DONE).unlink()
    with pytest.raises(RunError, match="no whole report: step 'walks' is not done"):
        export_run(part, tmp_path / "to")
    shutil.copy(run / "walks" / DONE, part / "walks" / DONE)
    (part / DONE).unlink()
    with pytest.raises(RunError, match="its report is not"):
        export_run(part, tmp_path / "to")
    plain = run_toy(tmp_path, "plain").folder
    with pytest.raises(RunError, match="has written no report"):
        export_run(plain, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_number_that_was_changed_by_hand_is_not_exported(run, tmp_path):
    copy = tmp_path / "one"
    shutil.copytree(run, copy)
    better = METHODS.with_columns(pl.col("auroc") + 0.1)
    better.write_csv(copy / "tables" / "methods.csv")
    with pytest.raises(DamagedError, match=r"methods\.csv has changed since it was written"):
        export_run(copy, tmp_path / "to")


def test_a_report_of_another_making_of_a_step_is_not_exported(run, tmp_path):
    copy = tmp_path / "one"
    shutil.copytree(run, copy)
    (copy / "walks" / DONE).write_text("{}")
    with pytest.raises(RunError, match="'walks' of run one was done again"):
        export_run(copy, tmp_path / "to")
