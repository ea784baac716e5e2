"""Examples of what PLAR corrected: patches with what they showed before and after."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geohsal.geo.patches import pad_window
from geohsal.geo.polygons import mask_to_multipolygon
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.geo.states import PixelState
from geohsal.io.run import RasterKind, Round
from geohsal.io.web_picture import read_small, svg_path, webp_uri
from geohsal.workflows.report_map import class_pixels, view_pixels

MOST_PATCHES = 8

SEARCH_PX = 4096
"""Long side on which patches are looked for; larger scenes are looked through coarsely."""

PICTURE_PX = 256
"""Long side of a picture."""

LARGEST_PX = 1024
"""Long side of what is read of a patch."""

LEAST_CONTEXT_PX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A patch of corrected pixels of one class; `box` bounds it in pixels of the scene.

    `first` is the (row, col) of one of its pixels. In large scenes all of these are estimates.
    """

    scene_id: str
    class_id: int
    pixels: int
    box: Window
    first: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One patch for the page; its first pixel is at (`row`, `col`) of the scene.

    Pictures are data URIs and show `width` x `height` pixels of the scene; `outline` is a path in
    them. Only `image` may be missing: None.

    `teacher` is the class that most of its pixels had, `refined` the one that they got; `error` the
    mean error probability of its pixels. `cut` tells that the patch goes on outside.
    """

    scene_id: str
    row: int
    col: int
    width: int
    height: int
    pixels: int
    cut: bool
    teacher: int
    refined: int
    error: float | None
    image: str | None
    before: str
    after: str
    outline: str


def corrections(
    round_: Round, scenes: Sequence[Scene], classes: Sequence[ClassInfo]
) -> tuple[Correction, ...]:
    """The largest patches of each class in turn, over these scenes.

    Raises:
        DataError: a raster is damaged.
    """
    by_id = {scene.scene_id: scene for scene in scenes}
    found = [
        patch
        for scene in scenes
        if _path(round_, scene, "state").exists() and _path(round_, scene, "class").exists()
        for patch in find(round_, scene)
    ]
    return tuple(
        correction
        for patch in in_turn(found)[:MOST_PATCHES]
        if (correction := show(round_, by_id[patch.scene_id], patch, classes)) is not None
    )


def _path(round_: Round, scene: Scene, kind: RasterKind) -> Path:
    return round_.raster(scene.scene_id, kind)


def find(round_: Round, scene: Scene) -> list[Found]:
    """The largest patches of each class in a scene."""
    state = read_small(_path(round_, scene, "state"), longest=SEARCH_PX)[0]
    corrected = state == PixelState.CORRECTED
    if not corrected.any():
        return []
    refined = read_small(_path(round_, scene, "class"), longest=SEARCH_PX, bands=[1])[0]
    steps = scene.height / state.shape[0], scene.width / state.shape[1]
    return [
        _found(scene, int(code), box, labels == number, steps)
        for code in np.unique(refined[corrected])
        for number, box, labels in _largest(corrected & (refined == code))
    ]


def _largest(mask: NDArray[np.bool_]) -> Iterator[tuple[int, tuple[slice, slice], NDArray[Any]]]:
    """(number, box, labels in the box) of the largest 4-connected patches."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    for index in np.argsort(-sizes, kind="stable")[:MOST_PATCHES].tolist():
        yield index + 1, boxes[index], labels[boxes[index]]


def _found(
    scene: Scene,
    code: int,
    box: tuple[slice, slice],
    mask: NDArray[np.bool_],
    steps: tuple[float, float],
) -> Found:
    tall, wide = steps
    top, left = int(box[0].start * tall), int(box[1].start * wide)
    bottom, right = int(np.ceil(box[0].stop * tall)), int(np.ceil(box[1].stop * wide))
    row, col = np.argwhere(mask)[0].tolist()
    return Found(
        scene_id=scene.scene_id,
        class_id=code,
        pixels=round(int(mask.sum()) * tall * wide),
        box=Window(left, top, min(right, scene.width) - left, min(bottom, scene.height) - top),
        first=(int((box[0].start + row) * tall), int((box[1].start + col) * wide)),
    )


def in_turn(found: Sequence[Found]) -> list[Found]:
    """The largest patch of every class, then the second of every class, and so on."""
    by_class: dict[int, list[Found]] = {}
    for patch in sorted(found, key=_order):
        by_class.setdefault(patch.class_id, []).append(patch)
    rounds = zip_longest(*by_class.values())
    return [patch for turn in rounds for patch in turn if patch is not None]


def _order(patch: Found) -> tuple[int, str, tuple[int, int]]:
    return -patch.pixels, patch.scene_id, patch.first


def show(
    round_: Round, scene: Scene, patch: Found, classes: Sequence[ClassInfo]
) -> Correction | None:
    """A patch with its surroundings; None where the full scale has nothing of it."""
    window = _window(scene, patch)
    state = _read(round_, scene, "state", window)
    refined, teacher = _read(round_, scene, "class", window)
    mask = _own(
        (state[0] == PixelState.CORRECTED) & (refined == patch.class_id), patch.first, window
    )
    inside = np.argwhere(mask)
    if not len(inside):
        return None
    error = None
    if _path(round_, scene, "error").exists():
        error = float(np.nanmean(_read(round_, scene, "error", window)[0][mask]))
    image = None
    if _path(round_, scene, "view").exists():
        levels = read_small(
            _path(round_, scene, "view"), longest=PICTURE_PX, window=window, average=True
        )
        image = webp_uri(view_pixels(levels), lossless=False)
    return Correction(
        scene_id=scene.scene_id,
        row=int(window.row_off) + int(inside[0, 0]),
        col=int(window.col_off) + int(inside[0, 1]),
        width=int(window.width),
        height=int(window.height),
        pixels=int(mask.sum()),
        cut=_touches_inner_edge(mask, window, scene),
        teacher=int(np.bincount(teacher[mask]).argmax()),
        refined=patch.class_id,
        error=error,
        image=image,
        before=webp_uri(_small(class_pixels(teacher, classes)), lossless=True),
        after=webp_uri(_small(class_pixels(refined, classes)), lossless=True),
        outline=svg_path(mask_to_multipolygon(mask, transform=Affine.identity())),
    )


def _read(round_: Round, scene: Scene, kind: RasterKind, window: Window) -> NDArray[Any]:
    return read_small(_path(round_, scene, kind), longest=LARGEST_PX, window=window)


def _window(scene: Scene, patch: Found) -> Window:
    """The patch and its surroundings, at most `LARGEST_PX` a side, about square."""
    box = patch.box
    side = max(int(box.width), int(box.height))
    pad = max(LEAST_CONTEXT_PX, side // 2)
    wide = Window(
        box.col_off - (side - box.width) // 2, box.row_off - (side - box.height) // 2, side, side
    )
    if side + 2 * pad <= LARGEST_PX:
        return pad_window(wide, pad, scene)
    row, col = patch.first
    half = LARGEST_PX // 2
    return pad_window(Window(col - half, row - half, 2 * half, 2 * half), 0, scene)


def _own(mask: NDArray[np.bool_], first: tuple[int, int], window: Window) -> NDArray[np.bool_]:
    """The patch that holds the first pixel, else the largest."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    row, col = first[0] - int(window.row_off), first[1] - int(window.col_off)
    inside = 0 <= row < mask.shape[0] and 0 <= col < mask.shape[1]
    number = int(labels[row, col]) if inside else 0
    return np.asarray(labels == (number or np.bincount(labels.ravel())[1:].argmax() + 1))


def _touches_inner_edge(mask: NDArray[np.bool_], window: Window, scene: Scene) -> bool:
    """Whether the patch reaches an edge of the window that is not one of the scene."""
    return bool(
        (mask[0].any() and window.row_off > 0)
        or (mask[:, 0].any() and window.col_off > 0)
        or (mask[-1].any() and window.row_off + window.height < scene.height)
        or (mask[:, -1].any() and window.col_off + window.width < scene.width)
    )


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = -(-max(pixels.shape[:2]) // PICTURE_PX)
    return pixels[::step, ::step]
