"""What must be said beside a headline: simpler things that tell as much, others that disagree."""

from collections.abc import Sequence

import polars as pl


def caveats(
    against: pl.DataFrame, detectors: pl.DataFrame, of_texts: Sequence[str], *, is_useful: bool
) -> list[str]:
    """Sentences that a reader of the headline needs, the gravest first.

    `against` is of `compare_all`, `detectors` has the headline's difference by each detector (the
    first is the headline's own). `of_texts` names methods that look at no model: where one of them
    tells as much, wording may be all that there is to tell.
    """
    found = []
    texts = against.filter(pl.col("other").is_in(list(of_texts)))
    for row in texts.sort("auroc", descending=True).head(1).rows(named=True):
        name, told = row["other"], f"{row['auroc']:.3f}"
        told += f" [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
        if row["high"] < 0:
            found.append(
                f"But *{name}*, which looks at no model, tells more: {told}. What the other "
                "methods find here need be nothing but wording."
            )
        elif row["low"] <= 0 and is_useful:
            found.append(f"*{name}*, which looks at no model, is not told from it: {told}.")
    others = detectors.slice(1).filter(pl.col("difference_low") <= 0) if is_useful else None
    for row in [] if others is None else others.rows(named=True):
        found.append(
            f"By *{row['detector']}* it is not shown: {row['difference']:+.3f} "
            f"[{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]."
        )
    return found
