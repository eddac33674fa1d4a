"""Palettes by name: one for layers, one for positions, one for quantiles, and their ramps.

    LAYER_PALETTE     layers, from the first to the last
    POSITION_PALETTE  positions in the context
    QUANTILE_PALETTE  quantile levels, from the lowest to the highest

The ramps are matplotlib's viridis (van der Walt & Smith) and coolwarm (Moreland 2009) and
seaborn's rocket, mako and flare (Waskom): every fifth of their 256 colours, between which
colours are mixed. That is at most 2 of 255 from the original (a test compares them), and spares
the seconds that importing seaborn takes.
"""

from collections.abc import Mapping
from typing import Literal

PaletteRamp = Literal["viridis", "rocket", "mako", "flare", "coolwarm", "viridis_r", "rocket_r"]
"""A ramp by its usual name; `_r` is reversed."""

LAYER_PALETTE: PaletteRamp = "viridis"
POSITION_PALETTE: PaletteRamp = "flare"
QUANTILE_PALETTE: PaletteRamp = "mako"

PLAIN_GREY = "#8c8c8c"
"""Of what is only there to compare with; seen on white paper and on a dark page alike."""


def palette_colors(ramp: PaletteRamp, n: int) -> list[str]:
    """`n` colours as #rrggbb, evenly along the ramp without its ends, as seaborn picks them."""
    # The ramp is 256 colours: the one in which each share of the way falls.
    steps = [int(256 * (i + 1) / (n + 1)) for i in range(n)]
    return [ramp_color(PALETTE_RAMPS[ramp], step / 255) for step in steps]


def ramp_color(anchors: tuple[str, ...], share: float) -> str:
    """The colour at `share` (0 to 1) of the way along `anchors`."""
    place = min(max(share, 0.0), 1.0) * (len(anchors) - 1)
    i = min(int(place), len(anchors) - 2)
    pairs = zip(channels(anchors[i]), channels(anchors[i + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - i)):02x}" for a, b in pairs)


def channels(color: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`, each 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _unpacked(text: str) -> tuple[str, ...]:
    return tuple(f"#{color}" for color in text.split())


VIRIDIS = _unpacked("""
    440154 46085c 471063 481769 481d6f 482475 472a7a 46307e 453781 433d84 414287 3f4889 3d4e8a
    3a538b 38598c 355e8d 33638d 31688e 2e6d8e 2c718e 2a768e 297b8e 27808e 25848e 23898e 218e8d
    20928c 1f978b 1e9c89 1fa188 21a585 24aa83 28ae80 2eb37c 35b779 3dbc74 46c06f 50c46a 5ac864
    65cb5e 70cf57 7cd250 89d548 95d840 a2da37 b0dd2f bddf26 cae11f d8e219 e5e419 f1e51d fde725
""")

ROCKET = _unpacked("""
    03051a 08081e 100b23 170f28 1e122d 251433 2d1738 34193d 3c1a42 431c46 4b1d4a 531e4d 5b1e51
    631f53 6b1f56 731f58 7b1f59 841e5a 8c1d5b 951c5b 9e1a5b a6195a af1759 b71657 bf1654 c71951
    ce1d4e d5224a db2946 e03143 e53940 e9423e ec4c3e ef5640 f06043 f26948 f3734e f47c55 f4845d
    f58d64 f5966c f69e75 f6a67e f6ae87 f6b691 f6be9b f7c6a6 f7cdb1 f8d4bc f8dcc7 f9e3d2 faebdd
""")

MAKO = _unpacked("""
    0b0405 11070c 160b13 1b0f1a 201322 251729 291a31 2e1e39 312142 35254a 382953 3b2d5b 3d3164
    3f366d 403a76 413e7f 414387 40498e 3e4f94 3c5598 3a5b9b 38619d 37669e 366ca0 3572a1 3578a2
    357da3 3483a5 3488a6 348ea7 3493a8 3499aa 359fab 36a4ab 38aaac 3bafad 3fb5ad 43baad 48c0ad
    4fc5ad 57cbad 62cfac 70d4ad 7fd7af 8edbb3 9cdeb7 a9e1bd b5e5c4 c0e9cc caedd4 d4f1dc def5e5
""")

FLARE = _unpacked("""
    edb081 edab7e eca67b eca178 eb9c75 eb9872 ea936f ea8e6c e98969 e88466 e87f64 e77a62 e67560
    e5705e e36b5d e2665c e0615c de5d5c dc585c da545d d7505e d44c60 d04962 cc4663 c84465 c44267
    c04068 bb3f6a b63d6b b13c6c ad3b6d a8396e a3386f 9f376f 9a3670 953470 913371 8c3271 873171
    833070 7e2f70 792e6f 752d6f 702c6e 6b2b6c 662a6b 62296a 5d2868 582766 542665 4f2463 4b2362
""")

COOLWARM = _unpacked("""
    3b4cc0 4055c8 465ecf 4c66d6 536edd 5977e3 5f7fe8 6687ed 6c8ff1 7396f5 7a9df8 81a4fb 88abfd
    8fb1fe 96b7ff 9dbdff a3c2fe aac7fd b1cbfc b7cff9 bed2f6 c4d5f3 cad8ef cfdaea d5dbe5 dadce0
    dfdbd9 e4d9d2 e9d5cb edd2c3 f0cdbb f2c9b4 f5c4ac f6bea4 f7b89c f7b194 f7aa8c f6a385 f59c7d
    f39475 f08b6e ed8366 e97a5f e57058 e16751 dc5d4a d65244 d0473d ca3b37 c32e31 bb1b2c b40426
""")


PALETTE_RAMPS: Mapping[PaletteRamp, tuple[str, ...]] = {
    "viridis": VIRIDIS,
    "rocket": ROCKET,
    "mako": MAKO,
    "flare": FLARE,
    "coolwarm": COOLWARM,
    "viridis_r": VIRIDIS[::-1],
    "rocket_r": ROCKET[::-1],
}
