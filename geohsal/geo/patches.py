"""Patches: connected pixels of one code, with their polygons and what rasters say inside them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geohsal.geo.areas import cell_areas_m2
from geohsal.geo.polygons import burn, polygonize, sieve
from geohsal.geo.scene import Scene

HASH_STEPS = 16
"""Vertices closer than 1/32 of a pixel hash alike: a re-save changes nothing, an edit does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Patches of one window, numbered from 0 in a fixed order.

    `polygons` are in (column, row) of the window; `ids` (row, col) holds patch number + 1, 0 where
    there is none; `pixels` counts each patch.
    """

    codes: NDArray[np.int32]
    polygons: tuple[Polygon, ...]
    ids: NDArray[np.int32]
    pixels: NDArray[np.int64]

    def mean(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean of a (row, col) raster in each patch."""
        total = np.bincount(self.ids.ravel(), values.ravel(), minlength=len(self.codes) + 1)[1:]
        return np.asarray(total / np.maximum(self.pixels, 1))

    def majority(self, values: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Most frequent value of a (row, col) raster in each patch; the lowest of equals."""
        found, index = np.unique(values, return_inverse=True)
        flat = self.ids.ravel().astype(np.int64) * found.size + index.ravel()
        counts = np.bincount(flat, minlength=(len(self.codes) + 1) * found.size)
        best = counts.reshape(-1, found.size)[1:].argmax(axis=1)
        return np.asarray(found[best], dtype=np.int64)

    def areas_m2(self, scene: Scene, window: Window) -> list[float | None]:
        """Ground area of each patch; None for local scenes."""
        boxes = [_box(polygon, window) for polygon in self.polygons]
        areas = cell_areas_m2(scene, boxes) if boxes else None
        if areas is None:
            return [None] * len(boxes)
        sizes = np.array([box.width * box.height for box in boxes])
        return [round(float(area), 2) for area in areas * self.pixels / sizes]


def find_patches(
    codes: NDArray[np.uint8] | NDArray[np.int32], *, mask: NDArray[np.bool_], sieve_px: int
) -> Patches:
    """4-connected patches of equal codes inside `mask`; together they cover exactly the mask.

    Patches below `sieve_px` pixels first join their largest neighbour inside the mask.
    """
    clean = sieve(codes, mask=mask, size_px=sieve_px)
    found = polygonize(clean, transform=Affine.identity(), mask=mask)
    polygons = tuple(polygon for _, polygon in found)
    ids = burn(
        [(polygon, number) for number, polygon in enumerate(polygons, start=1)],
        transform=Affine.identity(),
        shape=mask.shape,
        fill=0,
    )
    pixels = np.bincount(ids.ravel(), minlength=len(found) + 1)[1:]
    numbers = np.array([code for code, _ in found], dtype=np.int32)
    return Patches(codes=numbers, polygons=polygons, ids=ids, pixels=pixels)


def _box(polygon: Polygon, window: Window) -> Window:
    left, top, right, bottom = polygon.bounds
    return Window(window.col_off + left, window.row_off + top, right - left, bottom - top)


def merge_windows(windows: Sequence[Window]) -> list[Window]:
    """Bounding windows of groups that overlap or touch; no two of the result do."""
    boxes = [
        (int(w.row_off), int(w.col_off), int(w.row_off + w.height), int(w.col_off + w.width))
        for w in windows
    ]
    merged: list[tuple[int, int, int, int]] = []
    for box in sorted(boxes):
        current = box
        while near := [other for other in merged if _touch(current, other)]:
            group = np.array([current, *near])
            low, high = group[:, :2].min(axis=0), group[:, 2:].max(axis=0)
            current = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
            merged = [other for other in merged if other not in near]
        merged.append(current)
    return [Window(left, top, right - left, bottom - top) for top, left, bottom, right in merged]


def _touch(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def pad_window(window: Window, pad: int, scene: Scene) -> Window:
    """The window grown by `pad` pixels on each side, clipped to the scene."""
    top = max(int(window.row_off) - pad, 0)
    left = max(int(window.col_off) - pad, 0)
    bottom = min(int(window.row_off + window.height) + pad, scene.height)
    right = min(int(window.col_off + window.width) + pad, scene.width)
    return Window(left, top, right - left, bottom - top)


def slices(window: Window) -> tuple[slice, slice]:
    """(row, col) slices of an integer window."""
    top, left = int(window.row_off), int(window.col_off)
    return slice(top, top + int(window.height)), slice(left, left + int(window.width))


def shape_hash(geometry: BaseGeometry) -> str:
    """Name of a polygon given in pixel coordinates, whatever its start vertex or ring order.

    Vertices are rounded to 1/16 pixel and those on straight edges dropped, so a detour through
    another CRS or a re-save by other software gives the same name.
    """
    if geometry.is_empty:
        return "empty"
    rounded = shapely.transform(
        shapely.force_2d(geometry), lambda points: np.round(points * HASH_STEPS) + 0.0
    )
    parts = [part for part in shapely.get_parts(rounded) if isinstance(part, Polygon)]
    tidy = shapely.simplify(shapely.normalize(MultiPolygon(parts)), 0.0)
    return hashlib.sha256(shapely.to_wkb(shapely.normalize(tidy))).hexdigest()[:16]
