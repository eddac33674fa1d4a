"""What an anatomy run says in a few sentences, with the number that each rests on."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.report_ablations import ablation_table, shares
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.report_match import matching_table
from fluoroscope.studies.anatomy.report_slices import slice_table


def add_verdict(report: Report, found: Findings) -> None:
    report.section("What was found")
    said = [_quality(found), *_positions(found), *_slices(found), *_sharing(found)]
    report.text("\n".join(f"- {sentence}" for sentence in said))
    report.text(_reach(found))


def _quality(found: Findings) -> str:
    explained = [one[0] for one in found.clean.summary("explained_variance")]
    sentence = f"The SAEs explain {_range(explained, '.2f')} of the variance"
    if found.has_losses:
        cost = [one[0] for one in found.loss_estimates("difference")]
        sentence += f", and one in place of its layer costs {_range(cost, '.2f')} nats a token"
    dead = [one["dead"] / one["d_sae"] for one in found.clean.summaries]
    return f"{sentence}. {_range(dead, '.0%')} of the latents were active on no token of this text."


def _positions(found: Findings) -> list[str]:
    variants = found.same_slice
    rows = {row["reading"]: row for row in ablation_table(found).iter_rows(named=True)}
    clean = shares(found, found.clean)
    known = np.concatenate(clean)
    known = known[np.isfinite(known)]
    if not len(known):
        return []
    # Rounded before it is written: a small negative one would be written as -0.000.
    median = round(float(np.median(known)), 3) + 0.0
    sentence = (
        f"The position explains a median of {median:.3f} of a latent's variance (0 is chance), and "
        f"more than a tenth of it for {np.mean(known > 0.1):.1%} of the latents that "
        "are active often enough to ask"
    )
    for name, reading in variants.items():
        if reading.ablation == "positions_removed":
            ablated = np.concatenate(shares(found, found.looks[reading.key]))
            ablated = ablated[np.isfinite(ablated)]
            if len(ablated):
                sentence += f"; with {name}, for {np.mean(ablated > 0.1):.1%}"
    said = [f"{sentence}."]
    for name, reading in variants.items():
        row = rows[name]
        if reading.ablation is not None and row.get("ce_difference") is not None:
            ends = _ends(row["ce_difference_low"], row["ce_difference_high"])
            said.append(f"With {name}: {row['ce_difference']:+.2f} nats a token{ends}.")
    return said


def _slices(found: Findings) -> list[str]:
    clean = [reading for reading in found.readings if reading.ablation is None]
    if len(clean) < 2:
        return []
    table = slice_table(found, clean[1].key)
    n = int(table["tested"].sum())
    if n == 0:
        return []
    return [
        f"Of {n:,} latents {int(table['different'].sum()):,} are active at another rate on the "
        f"{clean[1].slice} sequences than on the {clean[0].slice}; between random halves of one "
        f"slice, {float(table['different_by_chance'].sum()):,.1f}."
    ]


def _sharing(found: Findings) -> list[str]:
    if len(found.config.set_names) < 2:
        return []
    said = []
    table = matching_table(found)
    for other in found.config.set_names[1:]:
        own = table.filter(table["other"] == other)
        if not own.height:
            continue
        said.append(
            f"With `{other}` {_column(own, 'decoder_shared_a_to_b')} of the latents are shared, "
            f"and {_column(own, 'decoder_shared_active_a_to_b')} of those that are active on this "
            f"text ({_column(own, 'decoder_one_to_one')} one to one; a rotated copy shares "
            f"{_column(own, 'decoder_rotated_a_to_b')}). Of the shared ones "
            f"{_column(own, 'decoder_same_index_a_to_b')} have the same index in both: "
            "hardly one by chance, and many where the two began alike."
        )
    return said


def _reach(found: Findings) -> str:
    config = found.config
    text = (
        "documents that the SAEs were not trained on"
        if config.split_of("") == "test"
        else "all documents; whether the SAEs were trained on some of them is not known"
    )
    return (
        f"Ranges are over hook points. The text: {text}. SAEs were read on {config.n_sequences} "
        f"sequences of each slice at most; a latent that is dead here may be active elsewhere."
    )


def _column(table: pl.DataFrame, name: str) -> str:
    return _range(table[name].to_list() if name in table.columns else [], ".0%")


def _range(values: Sequence[float | None], form: str) -> str:
    told = [value for value in values if value is not None and np.isfinite(value)]
    if not told:
        return "none that could be told"
    low, high = format(min(told), form), format(max(told), form)
    return low if low == high else f"{low} to {high}"


def _ends(low: float | None, high: float | None) -> str:
    if low is None or high is None or not np.isfinite([low, high]).all():
        return ""
    return f" [{low:+.2f}, {high:+.2f}]"
