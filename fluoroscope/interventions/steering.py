"""One set of edits for everything that a model runs.

    with steer(model, {"3.resid_post": AddDirection(vector, 4.0)}, LAST | GENERATED) as edits:
        (text,) = generate(model, ["Once upon a time"])
    print(int(edits.n_applied))

It holds for `forward`, `loss`, `capture` and `generate` alike.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from fluoroscope.interventions.positions import ALL, Positions
from fluoroscope.interventions.row_edits import EditSet, RowEdits
from fluoroscope.models.language_model import LanguageModel


@contextmanager
def steer(model: LanguageModel, edits: EditSet, positions: Positions = ALL) -> Iterator[RowEdits]:
    """Inside the `with` block every row is edited at these positions.

    What was not edited as it should have been is an `InterventionError`; edits that never came
    to a position of theirs (`GENERATED` in a pass over given text) are warned of.
    """
    intervention = RowEdits(model, [edits], positions, is_for_all=True)
    with model.intervened(intervention):
        yield intervention
    if edits and int(intervention.n_applied) == 0:
        warnings.warn(
            "Nothing was edited inside `with steer(...)`: no pass came to a position of its edits. "
            "GENERATED, for one, has none in a pass over given text.",
            stacklevel=3,
        )
