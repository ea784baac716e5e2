"""Which labelled pixels become evidence: away from label borders, a few per region and class."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geohsal.geo.states import IGNORE_INDEX


def border_depth(classes: NDArray[np.uint8], *, at_most: int) -> NDArray[np.uint8]:
    """Chessboard distance of labelled pixels to another class or no label, 0 where unlabelled.

    The window's edge is not a border: with a margin of `at_most` - 1 pixels, clipped to the scene,
    the depths inside it are those of the whole scene.

    Args:
        classes: class ids (row, col) of a window, 255 where unlabelled.
        at_most: larger distances are not told apart; up to 255.
    """
    depth = np.zeros(classes.shape, dtype=np.uint8)
    for number in np.unique(classes[classes != IGNORE_INDEX]):
        inside = classes == number
        far = inside.all()  # the transform would not find a border
        found = at_most if far else ndimage.distance_transform_cdt(inside, "chessboard")[inside]
        depth[inside] = np.minimum(found, at_most)
    return depth


def interior(
    classes: NDArray[np.uint8],
    regions: NDArray[np.int32],
    depth: NDArray[np.uint8],
    *,
    distance_px: int,
) -> NDArray[np.bool_]:
    """Which labelled pixels lie further than `distance_px` from another class or no label.

    Features near a label border mix two covers. A region that has no such pixel of a class keeps
    its innermost ones, so erosion never empties it. All arrays hold one value per pixel.

    Args:
        classes: class ids, none 255.
        regions: number of the labelled region, all of whose pixels are here.
        depth: as `border_depth` gives, of at most `distance_px` + 1 or more.
        distance_px: chessboard distance; one feature stride. 0 keeps every pixel.
    """
    pairs = regions.astype(np.int64) * (IGNORE_INDEX + 1) + classes
    _, place = np.unique(pairs, return_inverse=True)
    innermost = np.zeros(place.max(initial=-1) + 1, dtype=np.uint8)
    np.maximum.at(innermost, place, depth)
    return np.asarray(depth >= np.minimum(innermost[place], distance_px + 1), dtype=np.bool_)


def draw_pixels(
    labels: NDArray[np.integer],
    regions: NDArray[np.integer],
    *,
    per_region: int,
    max_regions: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Sorted indices of at most `per_region` pixels per (region, class).

    At most `max_regions` regions per class are visited, drawn by `rng`.

    Args:
        labels: [n] class ids; 255 is never drawn.
        regions: [n] region ids.
        per_region: pixels per region and class.
        max_regions: regions per class.
        rng: source of the draw.
    """
    if len(labels) == 0:
        return np.zeros(0, dtype=np.int64)
    order = rng.permutation(len(labels))
    order = order[labels[order] != IGNORE_INDEX]
    order = order[np.lexsort((regions[order], labels[order]))]  # stable: random within a group
    if len(order) == 0:
        return np.zeros(0, dtype=np.int64)
    group, rank = _groups(labels[order], regions[order])
    keep = rank < per_region
    first = np.flatnonzero(rank == 0)
    chosen = np.zeros(len(first), dtype=np.bool_)
    for number in np.unique(labels[order]):
        mine = np.flatnonzero(labels[order][first] == number)
        chosen[mine if len(mine) <= max_regions else rng.permutation(mine)[:max_regions]] = True
    drawn: NDArray[np.int64] = np.sort(order[keep & chosen[group]]).astype(np.int64)
    return drawn


def _groups(
    labels: NDArray[np.integer], regions: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the run of equal (label, region) that each element is in, and place within it."""
    change = np.ones(len(labels), dtype=np.bool_)
    change[1:] = (labels[1:] != labels[:-1]) | (regions[1:] != regions[:-1])
    group = np.cumsum(change) - 1
    rank = np.arange(len(labels)) - np.flatnonzero(change)[group]
    return group.astype(np.int64), rank.astype(np.int64)


def region_folds(
    labels: NDArray[np.integer],
    regions: NDArray[np.integer],
    *,
    folds: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Fold [n] of each pixel; all pixels of a region share it, classes are spread over folds."""
    unique, first = np.unique(regions, return_index=True)
    shuffled = rng.permutation(len(unique))
    spread = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold_of_region = np.empty(len(unique), dtype=np.int64)
    fold_of_region[spread] = np.arange(len(unique)) % folds
    return np.asarray(fold_of_region[np.searchsorted(unique, regions)], dtype=np.int64)


def count_regions(
    labels: NDArray[np.integer], regions: NDArray[np.integer], *, num_classes: int
) -> NDArray[np.int64]:
    """[C] number of distinct regions that contain each class."""
    pairs = np.unique(np.stack([labels, regions]).astype(np.int64), axis=1)
    counts = np.bincount(pairs[0], minlength=num_classes).astype(np.int64)
    return counts
