"""Single test samples before and after, and where in them the picked latents are active."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.runs.report_strips import Strip, StripRow
from fluoroscope.studies.steering.report_findings import Findings
from fluoroscope.studies.steering.shown_samples import N_EACH, Why, changes, choose_samples
from fluoroscope.studies.steering.steps.evaluate import UNSTEERED

_SAID: dict[Why, str] = {
    "better": "scores higher",
    "worse": "scores lower",
    "changed alike": "replies otherwise, scores alike",
    "unchanged": "replies and scores alike",
}


def add_samples(report: Report, found: Findings) -> None:
    before, after = found.said(UNSTEERED), found.said(found.main)
    kinds = changes(before, after)
    counts = {why: kinds.count(why) for why in _SAID}
    chosen = choose_samples(before, after, found.config.seed)
    report.section("Before and after")
    report.text(
        f"Of {len(before)} test samples {counts['better']} score higher under *{found.main}*, "
        f"{counts['worse']} score lower (by however little), {counts['changed alike']} get "
        f"another reply of the same score, and {counts['unchanged']} stay as they are. "
        f"Shown are the first {N_EACH} of each kind in the order that the seed gives, of "
        "different groups, replies that differ first; nobody chose them."
    )
    ids: dict[str, Why] = {one: why for why, some in chosen.items() for one in some}
    report.table(
        "samples", samples_table(before, after, ids), "The same samples, unsteered and steered."
    )
    if found.tokens is not None and len(found.tokens):
        strips = _strips(found.tokens, before, after, ids)
        report.text(
            "Below, each token of some of these texts (the prompt with the unsteered reply) stands "
            "above how strong the parts with the largest |r| are at it, **before** anything is "
            "steered; steering holds at the prompt's last token and in the reply."
        )
        report.strips(strips, "Numbers are under the pointer; colour is full at the largest.")


def samples_table(
    before: pl.DataFrame, after: pl.DataFrame, ids: Mapping[str, Why]
) -> pl.DataFrame:
    """A row a shown sample, in the order of `ids`."""
    old = {row["id"]: row for row in before.iter_rows(named=True)}
    new = {row["id"]: row for row in after.iter_rows(named=True)}
    rows = [
        {
            "kind": _SAID[why],
            "prompt": old[one]["prompt"],
            "unsteered": old[one]["text"],
            "steered": new[one]["text"],
            "score": old[one]["score"],
            "steered_score": new[one]["score"],
            "reason": old[one]["reason"],
            "steered_reason": new[one]["reason"],
        }
        for one, why in ids.items()
    ]
    return pl.DataFrame(rows)


def _strips(
    tokens: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame, ids: Mapping[str, Why]
) -> list[Strip]:
    """Of the first two samples of each kind."""
    full = {
        name: largest
        for name, largest in tokens.group_by("part", maintain_order=True)
        .agg(pl.col("activation").max())
        .iter_rows()
        if largest > 0
    }
    few: list[str] = []
    for why in _SAID:
        few += [one for one in ids if ids[one] == why][:2]
    old, new = (
        {row["id"]: row for row in frame.iter_rows(named=True)} for frame in (before, after)
    )
    return [
        _strip(tokens.filter(pl.col("id") == one), full, old[one], new[one], ids[one])
        for one in few
        if full
    ]


def _strip(
    tokens: pl.DataFrame,
    full: dict[str, float],
    old: dict[str, Any],  # Any: values of a table.
    new: dict[str, Any],  # Any: values of a table.
    why: Why,
) -> Strip:
    parts = tokens.partition_by("part", maintain_order=True, as_dict=True)
    own = {str(name): part.sort("place") for (name,), part in parts.items()}
    pieces = next(iter(own.values()))["piece"].to_list()
    rows = [
        StripRow(name, part["activation"].to_list(), full[name])
        for name, part in own.items()
        if name in full
    ]
    said = f"{old['text'].strip()!r} \u2192 {new['text'].strip()!r}"
    if old["text"] == new["text"]:
        said = f"{old['text'].strip()!r}, the same"
    facts = {
        "score": round(old["score"], 3),
        "steered": round(new["score"], 3),
        "reply": said,
    }
    return Strip(pieces, rows, _SAID[why].capitalize(), facts=facts)
