"""Do tracks decide the answer? Which tracks are edited, how, and what the changes tell.

A contest between hypotheses is decided where the layers end, so its contenders are the tracks
that are there in the last layer of the SAEs. The winning track is the contender with the largest
existence x strength in that layer (the dominant track of the seed), the losing track the next.
Neither looks at logits, at the answer or at its label: nothing that is measured has chosen them.

A track is ablated by setting its latents to 0, and boosted by setting them to a multiple of what
they were, in all its layers and at the prompt's last position alone, where the answer is drawn.
Latents are set and not scaled: a boost that earlier layers carry on would grow with every layer.

The winning track is the strongest, so its edits are larger than those of most others, and a
large edit may do more whatever it is along. So there are two kinds of controls: other tracks of
the same position, edited in the same way (`TRACKS`), and as large a change in the same layers
along latents that are in tracks of other tokens and in none here (`ELSEWHERE`).

Axes: n answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import CorpusError
from fluoroscope.core.seeding import stream
from fluoroscope.data.answers.record import AnswerRecord, OpenQuestion
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import SetLatent
from fluoroscope.studies.hallucination.settings import CausesSettings

WINNING, LOSING = "winning", "losing"
ROLES = (WINNING, LOSING)
ABLATE, BOOST = "ablate", "boost"
EDITS = (ABLATE, BOOST)
ITSELF, TRACKS, ELSEWHERE = "itself", "other tracks", "elsewhere"
CONTROLS = (TRACKS, ELSEWHERE)

TRUE_RIVAL, STATED_RIVAL, LIKELIEST_RIVAL = (
    "true answer", "answer of the other label", "likeliest other token",
)  # fmt: skip


class Track(NamedTuple):
    """One track at one position."""

    number: int
    layers: tuple[int, ...]
    latents: tuple[int, ...]
    activations: tuple[float, ...]
    weight: float
    """Existence x strength in its last layer."""


Counts = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]
"""Latents, and how often each is in a track."""


def tracks_of(points: pl.DataFrame) -> list[Track]:
    """The tracks of one position, from a table as `track_points` makes it."""
    found = []
    for part in points.sort("track", "layer").partition_by("track", maintain_order=True):
        last = part.row(-1, named=True)
        found.append(
            Track(
                last["track"],
                tuple(part["layer"]),
                tuple(part["latent"]),
                tuple(part["activation"]),
                last["existence"] * last["strength"],
            )
        )
    return found


def contest(tracks: Sequence[Track], n_layers: int) -> tuple[Track, Track] | None:
    """The winning and the losing track; None where fewer than two reach the last layer."""
    there = [track for track in tracks if track.layers[-1] == n_layers - 1]
    if len(there) < 2:
        return None
    first, second = sorted(there, key=lambda one: (-one.weight, one.number))[:2]
    return first, second


def other_tracks(
    of: Track, tracks: Sequence[Track], but: Sequence[Track], n: int, random: np.random.Generator
) -> list[Track]:
    """At most `n` that are none of `but`: those whose layers are most nearly those of `of`, and
    among equals by chance.
    """
    excluded = {track.number for track in but}
    others = [track for track in tracks if track.number not in excluded]
    shuffled = [others[i] for i in random.permutation(len(others))]
    return sorted(shuffled, key=lambda one: len(set(one.layers) ^ set(of.layers)))[:n]


def latents_elsewhere(
    of: Track,
    here: Sequence[Track],
    elsewhere: Mapping[int, Counts],
    n: int,
    random: np.random.Generator,
) -> list[tuple[int, ...]]:
    """At most `n` times a latent for each layer of a track, none twice: those of `elsewhere`, by
    layer, the more likely the more often they are active, and none that is in a track `here`.

    Drawn without replacement by exponential keys (Efraimidis and Spirakis 2006).
    """
    active = {pair for track in here for pair in zip(track.layers, track.latents, strict=True)}
    columns = []
    for layer in of.layers:
        latents, counts = elsewhere[layer]
        order = np.argsort(random.exponential(size=len(latents)) / counts, kind="stable")
        drawn = (int(latents[i]) for i in order)
        columns.append([latent for latent in drawn if (layer, latent) not in active][:n])
    return list(zip(*columns, strict=False))


Layers = Sequence[tuple[HookPoint, SparseAutoencoder]]
"""Of every layer of the tracks."""


class WeighedSetLatent(SetLatent):
    """A `SetLatent` of one latent that keeps how much it added when it was last applied."""

    added: float = 0.0
    """Length of the change, negative where it went against the latent's direction."""

    def terms(self) -> tuple[()]:
        # What is a sum of terms is never called, and would be weighed by nobody.
        return ()

    def change(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        found = super().change(x)
        direction = self.sae.W_dec[self.latents[0]].detach().to(found)
        self.added = float(found.reshape(-1, len(direction))[0] @ direction / direction.norm())
        return found


Place = HookPoint | str
Kind = TypeVar("Kind", bound=SetLatent)


def track_edits(track: Track, layers: Layers, factor: float, kind: type[Kind]) -> dict[Place, Kind]:
    """All latents of a track set to so many times what they were."""
    points = zip(track.layers, track.latents, track.activations, strict=True)
    return {
        layers[layer][0]: kind(layers[layer][1], latent, factor * activation)
        for layer, latent, activation in points
    }


def edits_elsewhere(
    weighed: Mapping[Place, WeighedSetLatent], latents: Sequence[int]
) -> dict[Place, AddDirection]:
    """What the weighed edits added when they were applied, along other latents of their SAEs."""
    found: dict[Place, AddDirection] = {}
    for (point, edit), latent in zip(weighed.items(), latents, strict=True):
        direction = edit.sae.W_dec[latent].detach().float()
        found[point] = AddDirection(direction / direction.norm(), edit.added)
    return found


class Contested(NamedTuple):
    """The winning and the losing track, all tracks of their position, and by layer the latents of
    any position.
    """

    both: tuple[Track, Track]
    here: list[Track]
    elsewhere: Mapping[int, Counts]


class Edited(NamedTuple):
    """One edit, and what it is: role, kind, number, track, n_points and edit."""

    about: Mapping[str, str | int]
    edit: EditSet


def edits_of(
    contested: Contested, layers: Layers, settings: CausesSettings, seed: int, screen: Screen
) -> Iterator[Edited]:
    """Both tracks and the controls of each, ablated and boosted."""
    factors = {ABLATE: 0.0, BOOST: settings.boost}
    weighed = {
        (role, edit): track_edits(track, layers, factor, WeighedSetLatent)
        for role, track in zip(ROLES, contested.both, strict=True)
        for edit, factor in factors.items()
    }
    # For what each adds in each layer, which the controls elsewhere add as well.
    screen.next_tokens(list(weighed.values()))
    for role, track in zip(ROLES, contested.both, strict=True):
        random, n = stream(seed, role), settings.controls
        others = other_tracks(track, contested.here, contested.both, n, random)
        far = latents_elsewhere(track, contested.here, contested.elsewhere, n, random)
        for edit, factor in factors.items():
            for number, one in enumerate([track, *others]):
                kind = TRACKS if number else ITSELF
                about = _about(role, kind, number, one.number, len(one.layers), edit)
                yield Edited(about, track_edits(one, layers, factor, SetLatent))
            for number, latents in enumerate(far, start=1):
                about = _about(role, ELSEWHERE, number, -1, len(latents), edit)
                yield Edited(about, edits_elsewhere(weighed[role, edit], latents))


def _about(
    role: str, kind: str, number: int, track: int, n_points: int, edit: str
) -> dict[str, str | int]:
    return {
        "role": role,
        "kind": kind,
        "number": number,
        "track": track,
        "n_points": n_points,
        "edit": edit,
    }


def sample_answers(answers: pl.DataFrame, n: int, seed: int) -> list[str]:
    """Ids of at most `n` answers, one of a group, as many true as made up as far as they go.

    `answers` has id, group_id and label. One of a group, as answers to one prompt have one last
    position and so the same tracks.
    """
    answers = answers.sort("id")
    order = stream(seed, "causes", "answers").permutation(len(answers))
    rows = [answers.row(int(i), named=True) for i in order]
    waiting = {label: [row for row in rows if row["label"] == label] for label in (0, 1)}
    taken: dict[str, str] = {}
    counts = {0: 0, 1: 0}
    while len(taken) < n:
        for label in waiting:
            waiting[label] = [row for row in waiting[label] if row["group_id"] not in taken]
        left = [label for label in waiting if waiting[label]]
        if not left:
            break
        label = min(left, key=lambda one: (counts[one], -one))
        row = waiting[label].pop(0)
        taken[row["group_id"]] = row["id"]
        counts[label] += 1
    return sorted(taken.values())


class Rival(NamedTuple):
    completion: str
    source: str


def rival_of(
    record: AnswerRecord, to_same_prompt: Sequence[AnswerRecord], question: OpenQuestion | None
) -> Rival | None:
    """Whom an answer competes with: the true answer to a question whose own answer is made up,
    else the first of the other label among those stated to the same prompt. None where only the
    model can say what else it might have answered.
    """
    if question is not None and record.label:
        start, stop = record.answer_span
        said = record.completion
        return Rival(said[:start] + question.answers[0] + said[stop:], TRUE_RIVAL)
    for other in to_same_prompt:
        if record.generator is None and other.label != record.label:
            return Rival(other.completion, STATED_RIVAL)
    return None


def parted(answer: Sequence[int], rival: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both up to the first token at which they differ."""
    for place, (one, other) in enumerate(zip(answer, rival, strict=False)):
        if one != other:
            return tuple(answer[: place + 1]), tuple(rival[: place + 1])
    raise CorpusError("answer and rival begin alike to the end of one of them")
