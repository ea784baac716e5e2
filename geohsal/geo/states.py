"""The state of a pixel: every pixel of a scene is in exactly one (method: pixel states)."""

from collections.abc import Mapping
from enum import IntEnum

IGNORE_INDEX = 255
"""The only label sentinel: unlabelled. Never a class, never nodata."""


class PixelState(IntEnum):
    """Code written to the state raster of a round."""

    NODATA = 0
    LABELLED = 1
    TRUSTED = 2
    CONFIRMED = 3
    CORRECTED = 4
    AMBIGUOUS = 5
    NOVEL = 6


UNDECIDED = (PixelState.AMBIGUOUS, PixelState.NOVEL)
"""States that go to a person: PLAR could not decide."""


STATE_COLORS: Mapping[PixelState, str] = {
    PixelState.NODATA: "#000000",
    PixelState.LABELLED: "#332288",
    PixelState.TRUSTED: "#dddddd",
    PixelState.CONFIRMED: "#44aa99",
    PixelState.CORRECTED: "#ddcc77",
    PixelState.AMBIGUOUS: "#cc6677",
    PixelState.NOVEL: "#882255",
}
"""Colour-blind-safe (Paul Tol's muted set)."""


class Split(IntEnum):
    """Code of the split that a pixel belongs to; BUFFER pixels belong to none."""

    BUFFER = 0
    TRAIN = 1
    VAL = 2
    TEST = 3
