"""What the report says of the clamped latents: their numbers, and cards with names and tokens."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.runs.report_cards import Context, FeatureCard
from fluoroscope.studies.unlearning.report_findings import Findings

_COLUMNS = (
    "hook_point", "latent", "rank", "forget_frequency", "retain_frequency", "forget_texts",
    "retain_texts", "forget_square", "retain_square", "importance",
)  # fmt: skip


def add_latents(report: Report, found: Findings) -> None:
    report.section("What is clamped")
    settings = found.settings[found.main]
    rule = (
        f"active in less than {settings['threshold']:g} of the tokens to keep, and most often in "
        "texts to forget (SAEBench after Farrell et al.)"
        if settings["selection"] == "frequency"
        else f"from the {settings['threshold']:g}th percentile of importance on (DSG)"
    )
    report.text(
        f"{len(found.picks)} latents: {rule}. Frequencies are shares of tokens and of texts; "
        "squares are mean squares; importance is their ratio, empty where it is infinite."
    )
    table = found.picks.select(_COLUMNS).with_columns(
        pl.when(pl.col("importance").is_infinite()).then(None).otherwise("importance")
        .alias("importance")
    )  # fmt: skip
    report.table("latents", without_nan(table), "Latents of the main plan, by rank.")
    if not found.cards:
        return
    report.subsection("Identity cards")
    unit = "people" if found.config.people is not None else "documents"
    report.text(
        "Each with where it is most active among all texts that were learnt from, the tokens on "
        f"which it is active in texts to forget, and in the texts of how many {unit} on either "
        "side. A latent that is active for many who are kept is none that knows who is to be "
        "forgotten."
    )
    report.cards([_card(card, unit) for card in found.cards])


def _card(card: Mapping[str, Any], unit: str) -> FeatureCard:  # Any: JSON values.
    total = sum(value for _, value in card["fires_on"]) or 1.0
    tokens = ", ".join(
        f"{token.strip() or 'a blank'} {value / total:.0%}" for token, value in card["fires_on"]
    )
    return FeatureCard(
        f"latent {card['latent']} at {card['hook_point']}",
        numbers={
            "rank": card["rank"],
            "tokens to forget": round(card["forget_frequency"], 4),
            "tokens to keep": round(card["retain_frequency"], 4),
            f"{unit} to forget": card["forget_groups"],
            f"{unit} to keep": card["retain_groups"],
        },
        contexts=[
            Context(one["pieces"], one["activations"], one["marked"]) for one in card["contexts"]
        ],
        promoted=[(token, value) for token, value in card["promoted"]],
        suppressed=[(token, value) for token, value in card["suppressed"]],
        note=f"Active on {tokens} of all that it adds up to there." if tokens else "",
    )
