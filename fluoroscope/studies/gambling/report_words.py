"""Words in the report: those that go with latents, those that patches bring, and readings."""

import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.gambling.steps.words import (
    GROUPS,
    INTERVENTIONAL,
    OBSERVED,
    READINGS,
    read_words,
)

_SHOWN = 40
_COLUMNS = (
    "hook_point", "latent", "condition", "word", "rate_high", "rate_low", "difference",
    "difference_low", "difference_high", "log_odds", "z", "p", "q",
)  # fmt: skip


def add_words(report: Report, run: Run) -> None:
    report.section("Words")
    tables = {name: read_words(run, name) for name in (OBSERVED, INTERVENTIONAL, GROUPS, READINGS)}
    if not any(map(len, tables.values())):
        report.text("No word is in enough replies to be compared.")
        return
    report.text(
        "A reply counts a word once. **Observed**: replies with the latent active at the end of "
        "their prompt against as many without that made the same decision; one reply a game. "
        "**Interventional**: replies under a patch against those of the same luck without, to a "
        "few prompts, for which they hold. "
        "Log-odds have an informative Dirichlet prior; p is exact, q after Benjamini-Hochberg over "
        "all words of all latents. The two lists answer different questions and are kept apart."
    )
    if len(readings := tables[READINGS]):
        report.table("readings", readings, "What each latent goes along with, in words.")
    captions = {
        OBSERVED: ("words_observed", "Words of replies with the latent active."),
        INTERVENTIONAL: ("words_interventional", "Words that a patch brings or takes away."),
        GROUPS: (
            "words_bankrupt",
            "The last bet of bankrupt games against that of safe ones; one reply a game.",
        ),
    }
    for file, (name, caption) in captions.items():
        table = tables[file]
        if len(table):
            best = table.sort("q", pl.col("z").abs(), descending=[False, True]).head(_SHOWN)
            kept = [column for column in _COLUMNS if column in best.columns]
            floats = [c for c in kept if best.schema[c].is_float()]
            shown = best.select(kept).with_columns(pl.col(floats).fill_nan(None))
            report.table(name, shown, caption, {"p": ".2g", "q": ".2g"})
