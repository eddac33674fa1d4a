"""The residual stream that SAEs read, and where their decoder directions point (F18)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fluoroscope.features.statistics import TEXT
from fluoroscope.models.hook_points import HookPoint, Stream
from fluoroscope.plots.anatomy.maps import axis_names, combined_map, layer_maps
from fluoroscope.plots.animation import layer_animation
from fluoroscope.plots.residual_stream import Tap, residual_stream
from fluoroscope.runs.report import Report
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.steps.decoder_map import load_map
from fluoroscope.studies.anatomy.steps.read import (
    NORM_SEQUENCES,
    TOKENS_FILE,
    read_notes,
    reading_text,
)

_TAPPED: Mapping[Stream, int] = {"embed": 0, "resid_pre": 0, "resid_post": 1}
"""Streams that are drawn as taps, and how many blocks past the start of their layer."""


def add_stream(report: Report, found: Findings) -> None:
    """A drawing of the stream, its width and what flows in, and the SAEs on it."""
    norms = _median_norms(found)
    n_layers = found.config.model.n_layers

    def of(stream: Stream) -> np.ndarray:
        return np.array([norms.get(HookPoint(i, stream), np.nan) for i in range(n_layers)])

    stream = np.append(of("resid_pre"), norms[HookPoint(n_layers - 1, "resid_post")])
    report.drawing(
        "residual_stream",
        residual_stream(stream, of("attn_out"), of("mlp_out"), _taps(found), "The residual stream"),
        f"Width: median norm of the residual stream at text tokens, of {NORM_SEQUENCES} sequences "
        "at most; branches: median norms of what "
        "attention and MLP add. Streams add up as vectors, and their norms do not.",
        alt="The residual stream through the layers, with attention and MLP flowing in.",
    )


def _median_norms(found: Findings) -> dict[HookPoint, float]:
    notes = read_notes(found.run, found.config, found.first, TOKENS_FILE, "")
    layout = reading_text(found.run, found.config, found.first).layout
    medians: dict[HookPoint, float] = {}
    for key, values in notes.items():
        point, _, name = key.rpartition("/")
        if name == "norm":
            text = layout.counted(TEXT)[: len(values)]
            medians[HookPoint(point)] = float(np.median(values.numpy()[text]))
    return medians


def _taps(found: Findings) -> list[Tap]:
    taps: dict[int, Tap] = {}
    parts = zip(
        found.points,
        found.clean.summary("explained_variance"),
        found.clean.summary("l0"),
        found.clean.summaries,
        strict=True,
    )
    for point, explained, l0, summary in parts:
        if point.stream in _TAPPED:
            at = point.layer + _TAPPED[point.stream]
            dead = summary["dead"] / summary["d_sae"]
            # Where one block ends the next begins: of two SAEs there the first is drawn.
            taps.setdefault(at, Tap(at, explained[0], l0[0], dead))
    return list(taps.values())


def add_map(report: Report, found: Findings) -> None:
    places, followed, trust = load_map(found.run, found.points)
    report.section("A map of decoder directions")
    report.text(_trusted(trust))
    named = dict(zip(found.names, places.values(), strict=True))
    axes = axis_names(trust["method"], trust["explained"] and tuple(trust["explained"]))
    title = f"Decoder directions, {trust['method'].upper()} of all layers together"
    report.figure(
        "decoder_map_by_layer",
        layer_maps(named, axes),
        "F18. Each layer on the map of all.",
    )
    if len(found.points) == 1:
        return
    report.figure("decoder_map", combined_map(named, axes), "F18. All layers.")
    if followed is None:
        return
    n, own = trust["followed"]["n"], trust["followed"]
    report.animation(
        "decoder_map_through_layers",
        layer_animation(followed, found.names, axes, title),
        f"F18. {n:,} latents, each on its way to the latent of the next layer that it is matched "
        f"with, one to one (median cosine {own['cosine']:.2f}; of random directions "
        f"{own['cosine_by_chance']:.2f}).",
    )


def _trusted(trust: Mapping[str, Any]) -> str:  # Any: JSON values.
    words = (
        "Decoder rows of all layers were laid out together, so that a place means the same in "
        "every layer; latents that were never active on this text are left out. A plane keeps "
        "little of so many dimensions: "
    )
    if trust["explained"]:
        words += f"its two axes hold {sum(trust['explained']):.1%} of the variance, and "
    return words + (
        f"the {trust['n_neighbours']} dots that are nearest on the map are near in truth to a "
        f"degree of {trust['neighbours_kept']:.2f} (trustworthiness among {trust['n_judged']:,} "
        f"dots, 1 at best), against {trust['neighbours_kept_by_chance']:.2f} on planes drawn at "
        "random."
    )
