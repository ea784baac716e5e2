"""Labels from polygons: each feature is one labelled region, burnt by pixel centre."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from shapely.geometry.base import BaseGeometry

from geohsal.errors import LabelError
from geohsal.geo.polygons import burn
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.class_values import ClassValues
from geohsal.io.manifest import LabelSource
from geohsal.io.vector import (
    Layer,
    defect,
    field_names,
    layer_names,
    listing,
    read_layer,
    to_pixels,
)

CLASS_FIELDS = ("class", "class_name", "class_id")
"""Fields that a bare label path may have, in the order they are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelShape:
    """One feature to burn, in pixel coordinates; `number` counts the used features by fid."""

    number: int
    fid: int
    class_id: int
    geometry: BaseGeometry


def vector_shapes(
    source: LabelSource, scene: Scene, values: ClassValues, *, where: str
) -> list[LabelShape]:
    """Features of a label source that carry a class, in the order of their ids.

    Raises:
        LabelError: layer or field are missing or unclear, a feature has no usable geometry or
            class (all are listed with their ids), there are none, or none lies on the scene.
        GeoreferenceError: there is no way from the layer's CRS to the scene's.
    """
    layer = _layer(source, where=where)
    fids, ids = _classes(layer, values, where=where)
    whole = [g for g, class_id in zip(layer.geometries, ids, strict=True) if class_id is not None]
    used = [class_id for class_id in ids if class_id is not None]
    pixels = to_pixels([g for g in whole if g is not None], layer.crs, scene, where=where)
    shapes = [
        LabelShape(number=number, fid=fid, class_id=class_id, geometry=geometry)
        for number, (fid, class_id, geometry) in enumerate(
            zip(fids, used, pixels, strict=True), start=1
        )
    ]
    extent = shapely.box(0, 0, scene.width, scene.height)
    if shapes and not any(shape.geometry.intersects(extent) for shape in shapes):
        raise LabelError(
            f"{where}: none of its {len(shapes)} features lies on scene {scene.scene_id!r}; check "
            "the layer's CRS and place"
        )
    return shapes


def _layer(source: LabelSource, *, where: str) -> Layer:
    names = layer_names(source.path, where=where)
    if source.layer is not None and source.layer not in names:
        raise LabelError(f"{where}: no layer {source.layer!r}; it has {', '.join(names) or 'none'}")
    if source.layer is None and len(names) != 1:
        raise LabelError(
            f"{where}: {len(names)} layers ({', '.join(names) or 'none with a geometry'}); name "
            "one with layer:"
        )
    name = source.layer or names[0]
    fields = field_names(source.path, name, where=where)
    field = _field(source.field, fields, where=where)
    layer = read_layer(source.path, layer=name, field=field, where=where)
    if not layer.fids:
        raise LabelError(f"{where}: layer {name!r} has no features; draw some or leave it out")
    return layer


def _field(wanted: str | None, fields: list[str], *, where: str) -> str:
    """The field that holds classes, in any case of letters."""
    for name in CLASS_FIELDS if wanted is None else (wanted,):
        if name in fields:
            return name
        near = [field for field in fields if field.casefold() == name.casefold()]
        if len(near) == 1:
            return near[0]
    missing = f"no field {wanted!r}" if wanted else f"no field {', '.join(CLASS_FIELDS)}"
    raise LabelError(
        f"{where}: {missing}; it has {', '.join(fields) or 'no fields'}; name one with field:"
    )


def _classes(
    layer: Layer, values: ClassValues, *, where: str
) -> tuple[list[int], list[int | None]]:
    """Fids of the used features, and per feature its class id or None where it is ignored."""
    bad: dict[str, list[str]] = {}
    ids: list[int | None] = []
    for fid, geometry, value in zip(layer.fids, layer.geometries, layer.values, strict=True):
        meaning = values.of_field(value)
        problem = meaning.problem
        if problem is None and meaning.class_id != IGNORE_INDEX:
            problem = defect(geometry)
        if problem is not None:
            bad.setdefault(problem, []).append(str(fid))
        ids.append(meaning.class_id if meaning.class_id != IGNORE_INDEX else None)
    if bad:
        count = sum(len(fids) for fids in bad.values())
        told = [f"{why}: fid {listing(fids, separator=', ')}" for why, fids in bad.items()]
        raise LabelError(
            f"{where}: {count} of {len(ids)} features cannot be used: {listing(told)}; repair "
            f"them, map their values to classes ({', '.join(values.names)}) with values:, or list "
            "them under ignore:"
        )
    return [fid for fid, used in zip(layer.fids, ids, strict=True) if used is not None], ids


class BurntRows:
    """Shapes burnt a few rows at a time: each row once, from the top down."""

    def __init__(
        self, shapes: Sequence[LabelShape], scene: Scene, *, last_wins: bool, where: str
    ) -> None:
        self.regions = len(shapes)
        self._shapes = shapes
        self._scene = scene
        self._last_wins = last_wins
        self._where = where
        self._bounds = shapely.bounds([shape.geometry for shape in shapes]).reshape(-1, 4)
        self._classes = np.full(len(shapes) + 1, IGNORE_INDEX, dtype=np.uint8)
        self._classes[[shape.number for shape in shapes]] = [shape.class_id for shape in shapes]
        self._burnt = np.zeros(len(shapes) + 1, dtype=np.bool_)
        self._clashing = 0
        self._next = 0

    def read(self, top: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Class ids and region numbers (row, col) of the next rows of the scene."""
        assert top == self._next, "rows are burnt once each, in order"
        self._next = top + height
        near = self._near(top, height)
        numbered = [(shape.geometry, shape.number) for shape in near]
        regions: NDArray[np.int32] = self._burn(numbered, top, height, dtype=np.int32)
        classes = np.full(regions.shape, IGNORE_INDEX, dtype=np.uint8)
        known = regions > 0
        numbers = regions[known]
        classes[known] = self._classes[numbers]
        self._burnt[numbers] = True
        if not self._last_wins:
            clash = self._clash(near, top, height)
            classes[clash] = IGNORE_INDEX
            regions[clash] = 0
            self._clashing += int(clash.sum())
        return classes, regions

    def issues(self) -> list[str]:
        """What a person should know of the rows read so far."""
        issues = _unseen(self._shapes, self._scene, self._burnt, where=self._where)
        if self._clashing:
            pairs = listing(_clashing_pairs(self._shapes), separator=", ")
            issues.append(
                f"{self._where}: {self._clashing} pixels lie in features of different classes and "
                f"stay unlabelled: fids {pairs}"
            )
        return issues

    def _near(self, top: int, height: int) -> list[LabelShape]:
        low, high = self._bounds[:, 1], self._bounds[:, 3]
        near = np.flatnonzero((low <= top + height) & (high >= top))
        return [self._shapes[index] for index in near.tolist()]

    def _burn(
        self,
        pairs: Sequence[tuple[BaseGeometry, int]],
        top: int,
        height: int,
        *,
        dtype: DTypeLike,
    ) -> NDArray[Any]:
        shape = (height, self._scene.width)
        return burn(pairs, transform=Affine.translation(0, top), shape=shape, fill=0, dtype=dtype)

    def _clash(self, near: Sequence[LabelShape], top: int, height: int) -> NDArray[np.bool_]:
        """True where features of two classes or more hold the pixel's centre."""
        seen = np.zeros((height, self._scene.width), dtype=np.bool_)
        clash = np.zeros_like(seen)
        class_ids = sorted({shape.class_id for shape in near})
        for class_id in class_ids if len(class_ids) > 1 else ():
            pairs = [(shape.geometry, 1) for shape in near if shape.class_id == class_id]
            own = self._burn(pairs, top, height, dtype=np.uint8).astype(np.bool_)
            clash |= seen & own
            seen |= own
        return clash


def _clashing_pairs(shapes: Sequence[LabelShape]) -> list[str]:
    geometries = [shape.geometry for shape in shapes]
    tree = shapely.STRtree(geometries)
    first, second = tree.query(geometries, predicate="intersects")
    pairs = sorted((int(a), int(b)) for a, b in zip(first, second, strict=True) if a < b)
    return [
        f"{shapes[a].fid} and {shapes[b].fid}"
        for a, b in pairs
        if shapes[a].class_id != shapes[b].class_id
        and geometries[a].intersection(geometries[b]).area > 0
    ]


def _unseen(
    shapes: Sequence[LabelShape], scene: Scene, burnt: NDArray[np.bool_], *, where: str
) -> list[str]:
    """Features outside the scene, and features that hold no pixel's centre."""
    extent = shapely.box(0, 0, scene.width, scene.height)
    missed = [shape for shape in shapes if not burnt[shape.number]]
    outside = [shape for shape in missed if not shape.geometry.intersects(extent)]
    hidden = [str(shape.fid) for shape in missed if shape not in outside]
    issues = []
    if outside:
        issues.append(f"{where}: {len(outside)} of {len(shapes)} features lie outside the scene")
    if hidden:
        issues.append(
            f"{where}: {len(hidden)} features label no pixel (too small, or covered by later "
            f"ones): fids {listing(hidden, separator=', ')}"
        )
    return issues
