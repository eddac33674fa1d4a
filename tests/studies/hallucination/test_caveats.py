import polars as pl

from fluoroscope.studies.hallucination.detection.caveats import caveats

TEXTS = ("style", "words of the answer")


def against(*rows):
    """Rows of other, its AUROC, and by how much the headline's is ahead, with ends."""
    names = ("other", "auroc", "difference", "low", "high")
    frame = pl.DataFrame(rows, schema=names, orient="row")
    return frame.with_columns(auroc_low=pl.col("auroc") - 0.02, auroc_high=pl.col("auroc") + 0.02)


def detectors(*rows):
    names = ("detector", "difference", "difference_low", "difference_high")
    return pl.DataFrame(rows, schema=names, orient="row")


AGREE = detectors(("logistic", 0.06, 0.04, 0.08), ("forest", 0.05, 0.02, 0.08))


def test_words_that_tell_more_than_the_headline_are_named_with_both_intervals():
    rows = against(
        ("style", 0.61, 0.06, 0.04, 0.08),
        ("words of the answer", 0.82, -0.15, -0.17, -0.13),
        ("latents", 0.90, -0.2, -0.3, -0.1),
    )
    for is_useful in (True, False):
        (said,) = caveats(rows, AGREE, TEXTS, is_useful=is_useful)
        assert said.startswith("But *words of the answer*, which looks at no model, tells more")
        assert "0.820 [0.800, 0.840]" in said


def test_words_that_are_not_told_from_a_headline_that_holds_are_named_and_else_not():
    rows = against(("style", 0.66, 0.01, -0.01, 0.03))
    (said,) = caveats(rows, AGREE, TEXTS, is_useful=True)
    assert said.startswith("*style*, which looks at no model, is not told from it")
    assert caveats(rows, AGREE, TEXTS, is_useful=False) == []


def test_nothing_is_said_where_the_headline_is_ahead_of_all_texts():
    assert caveats(against(("style", 0.5, 0.2, 0.1, 0.3)), AGREE, TEXTS, is_useful=True) == []


def test_detectors_that_do_not_show_it_are_named_beside_a_headline_that_holds():
    rows = against(("style", 0.5, 0.2, 0.1, 0.3))
    found = detectors(("logistic", 0.06, 0.04, 0.08), ("forest", -0.013, -0.03, 0.004))
    (said,) = caveats(rows, found, TEXTS, is_useful=True)
    assert said == "By *forest* it is not shown: -0.013 [-0.030, +0.004]."
    assert caveats(rows, found, TEXTS, is_useful=False) == []
