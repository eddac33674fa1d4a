"""How activations become rows: what is kept, in which precision, in which tiles."""

from typing import Literal

from pydantic import PositiveInt

from fluoroscope.core.config import Config

StoreDtype = Literal["float32", "bfloat16", "float16"]
BYTES_PER_NUMBER: dict[StoreDtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


class ExtractConfig(Config):
    """WHAT decides the rows of a store or of a stream straight from a model."""

    dtype: StoreDtype = "float32"
    """Precision that rows are kept in; sums over them are float32 or better."""

    tile_windows: PositiveInt = 16
    """Windows in one forward pass. It decides how floating point rounds and the block that is
    read at once, so it is part of WHAT."""

    exclude_bos: bool = True
    """Leave out the rows of start and separator tokens, which are attention sinks."""

    exclude_sinks: bool = False
    """Leave out rows whose norm exceeds 10 times their tile's median at any hook point. Only a
    store can, as a stream from a model must know its rows before it computes them."""
