"""Labels from polygons: each feature is one labelled region, burnt by pixel centre."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
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

_ROWS = 1024


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


def burn_shapes(
    shapes: Sequence[LabelShape], scene: Scene, *, last_wins: bool, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int32], list[str]]:
    """Class ids, region numbers and what a person should know; (row, col) of the scene."""
    regions: NDArray[np.int32] = burn(
        [(shape.geometry, shape.number) for shape in shapes],
        transform=Affine.identity(),
        shape=scene.shape,
        fill=0,
        dtype=np.int32,
    )
    lookup = np.full(len(shapes) + 1, IGNORE_INDEX, dtype=np.uint8)
    lookup[[shape.number for shape in shapes]] = [shape.class_id for shape in shapes]
    classes = np.empty(scene.shape, dtype=np.uint8)
    burnt = np.zeros(len(shapes) + 1, dtype=np.bool_)
    for row in range(0, scene.height, _ROWS):  # indexing widens its index to 8 bytes a pixel
        strip = regions[row : row + _ROWS]
        classes[row : row + _ROWS] = lookup[strip]
        burnt[strip] = True
    issues = _unseen(shapes, scene, burnt, where=where)
    if not last_wins:
        clash = _clash(shapes, scene)
        if clash.any():
            classes[clash] = IGNORE_INDEX
            regions[clash] = 0
            pairs = listing(_clashing_pairs(shapes), separator=", ")
            issues.append(
                f"{where}: {int(clash.sum())} pixels lie in features of different classes and "
                f"stay unlabelled: fids {pairs}"
            )
    return classes, regions, issues


def _clash(shapes: Sequence[LabelShape], scene: Scene) -> NDArray[np.bool_]:
    """True where features of two classes or more hold the pixel's centre."""
    seen = np.zeros(scene.shape, dtype=np.bool_)
    clash = np.zeros(scene.shape, dtype=np.bool_)
    for class_id in sorted({shape.class_id for shape in shapes}):
        own = burn(
            [(shape.geometry, 1) for shape in shapes if shape.class_id == class_id],
            transform=Affine.identity(),
            shape=scene.shape,
            fill=0,
            dtype=np.uint8,
        ).astype(np.bool_)
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
