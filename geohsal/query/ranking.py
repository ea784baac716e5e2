"""Places of a large table in the order of a key, sorted only as far as somebody asks."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FIRST = 4096
"""Places that are sorted at first; each further block is this many times larger than the last."""
GROWTH = 8


def in_order(keys: NDArray[np.floating], among: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Places where `among` holds, least key first, ties by place, in blocks that grow.

    All blocks together are `np.flatnonzero(among)` sorted stably by key; keys are numbers.
    """
    rest = np.flatnonzero(among)
    size = FIRST
    while rest.size:
        block = rest
        if rest.size > size:
            own = keys[rest]
            inside = own <= np.partition(own, size - 1)[size - 1]
            block, rest = rest[inside], rest[~inside]
        else:
            rest = rest[:0]
        yield block[np.argsort(keys[block], kind="stable")]
        size *= GROWTH


def leading(
    keys: NDArray[np.floating], among: NDArray[np.bool_], *, count: int
) -> NDArray[np.intp]:
    """The first `count` places of `in_order`."""
    found: list[NDArray[np.intp]] = []
    missing = count
    for block in in_order(keys, among) if count else ():
        found.append(block[:missing])
        missing -= len(found[-1])
        if not missing:
            break
    return np.concatenate(found) if found else np.zeros(0, dtype=np.intp)
