"""What people hand in: a review file, or its two layers saved elsewhere, each as one GeoPackage."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyogrio

from geohsal.errors import ReviewError
from geohsal.io.gpkg_read import field_names, layer_names, reading, settled_copy
from geohsal.io.review_schema import ANSWERS, ANSWERS_LAYER, CONFLICTS, REGIONS, REGIONS_LAYER

_FIELDS = {
    REGIONS: ("region_id", "status", "assigned_class"),
    ANSWERS: ("answer_id", "suggested_class", "assigned_class"),
}
"""Fields by which a layer is known whatever its name; the others are asked for when it is read."""

_LAYERS = {REGIONS: REGIONS_LAYER, ANSWERS: ANSWERS_LAYER}
_SINGLE = (".geojson", ".json", ".fgb")
_CANNOT = {
    ".shp": "a shapefile cuts field names to ten letters; save the layer as GeoPackage or GeoJSON",
    ".qgz": "a QGIS project, which holds no answers; give the review file, queries_rNNN.gpkg",
    ".qgs": "a QGIS project, which holds no answers; give the review file, queries_rNNN.gpkg",
    ".html": "the review page, which holds no answers; download decisions.csv from this page and "
    "hand that in",
    ".zip": "an archive; unpack it and give the review file in it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One review: where its layers `query_regions` and `answers` lie, as (file, layer).

    `label` names it among others; else its file names do.
    """

    layers: Mapping[str, tuple[Path, str]]
    label: str = ""

    @property
    def path(self) -> Path:
        """The file, or the first of the two."""
        return self.layers[REGIONS][0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file or files."""
        return tuple(dict.fromkeys(path for path, _ in self.layers.values()))

    @property
    def name(self) -> str:
        """The label or the file names, for messages and records."""
        return self.label or " + ".join(path.name for path in self.paths)

    @property
    def as_written(self) -> bool:
        """Whether it is a review file: one file, layers named as they were."""
        return len(self.paths) == 1 and all(
            layer.lower() == name for name, (_, layer) in self.layers.items()
        )


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """File names, with as many parent folders as tell files of one name apart."""
    parts = {path: path.absolute().parts for path in paths}
    names = {}
    for path, own in parts.items():
        alike = [other for other in parts.values() if other[-1] == own[-1] and other != own]
        depth = 1
        while any(other[-depth:] == own[-depth:] for other in alike):
            depth += 1
        names[path] = "/".join(own[-depth:])
    return names


def is_conflicts(path: Path) -> bool:
    """Whether a file is about differences between reviewers, not a review file.

    Raises:
        ReviewError: it is no GeoPackage.
    """
    if path.suffix.lower() in (".csv", *_SINGLE, *_CANNOT):
        return False
    with settled_copy(path) as copy:
        return any(name.lower().startswith(CONFLICTS) for name in layer_names(copy, where=path))


def gather(paths: Sequence[Path]) -> list[Source]:
    """The reviews that files hold; layers in files of their own are put together.

    Raises:
        ReviewError: a file is no review, or holds half of one and the other half is not there.
    """
    whole: list[Source] = []
    halves: dict[str, list[tuple[Path, str]]] = {REGIONS: [], ANSWERS: []}
    for path in paths:
        found = _layers_in(path)
        if len(found) == len(_FIELDS):
            whole.append(Source(layers={name: (path, found[name]) for name in _FIELDS}))
        else:
            for name, layer in found.items():
                halves[name].append((path, layer))
    regions, answers = halves[REGIONS], halves[ANSWERS]
    if not regions and not answers:
        return whole
    if len(regions) == len(answers) == 1:
        return [*whole, Source(layers={REGIONS: regions[0], ANSWERS: answers[0]})]
    have, lack = (REGIONS, ANSWERS) if len(regions) > len(answers) else (ANSWERS, REGIONS)
    names = ", ".join(str(path) for path, _ in halves[have])
    if not halves[lack]:
        raise ReviewError(
            f"{names}: no layer {lack}; give the file as it was written, or, where layers were "
            f"saved to files of their own, the file of layer {lack} in the same command"
        )
    raise ReviewError(
        f"{names}: which file of layer {lack} belongs to which is not known; put both layers of a "
        "review into one GeoPackage"
    )


def _layers_in(path: Path) -> dict[str, str]:
    """Review layer -> its name in the file.

    Raises:
        ReviewError: the file holds none, or is of a kind that cannot hold any.
    """
    kind = path.suffix.lower()
    if kind in _CANNOT:
        raise ReviewError(f"{path}: {_CANNOT[kind]}")
    if kind in _SINGLE:
        if not path.is_file():
            raise ReviewError(f"{path}: cannot be read (No such file or directory)")
        found = _known(path, where=path)
    else:
        with settled_copy(path) as copy:
            found = _known(copy, where=path)
    if not found:
        raise ReviewError(
            f"{path}: no layer {REGIONS}; give the file as it was written, or a layer that was "
            "saved with all its fields"
        )
    return found


def _known(path: Path, *, where: Path) -> dict[str, str]:
    names = layer_names(path, where=where)
    by_name = {name.lower(): name for name in names}
    if REGIONS in by_name and ANSWERS in by_name:
        return {REGIONS: by_name[REGIONS], ANSWERS: by_name[ANSWERS]}
    found: dict[str, str] = {}
    for name in names:
        fields = {field.lower() for field in field_names(path, name, where=where)}
        for layer, wanted in _FIELDS.items():
            if layer not in found and fields.issuperset(wanted):
                found[layer] = name
    return found


@contextmanager
def settled(source: Source) -> Iterator[Path]:
    """A GeoPackage with both layers under their own names; the files themselves stay untouched.

    Raises:
        ReviewError: a file cannot be read.
    """
    if source.as_written:
        with settled_copy(source.path) as copy:
            yield copy
        return
    with tempfile.TemporaryDirectory(prefix="geohsal-review-") as folder:
        joined = Path(folder) / "review.gpkg"
        for name, (path, layer) in source.layers.items():
            if path.suffix.lower() in _SINGLE:
                _copy_layer(path, layer, joined, name, where=path)
            else:
                with settled_copy(path) as copy:
                    _copy_layer(copy, layer, joined, name, where=path)
        yield joined


def _copy_layer(path: Path, layer: str, target: Path, name: str, *, where: Path) -> None:
    """Copy a layer's geometries and the fields that matter."""
    with reading(layer, where=where):
        meta, _, geometry, data = pyogrio.raw.read(path, layer=layer)
    wanted = {item.name for item in _LAYERS[name].fields}
    kept = [number for number, field in enumerate(meta["fields"]) if field.lower() in wanted]
    with reading(layer, where=where):
        pyogrio.raw.write(
            target,
            geometry,
            [data[number] for number in kept],
            [str(meta["fields"][number]).lower() for number in kept],
            layer=name,
            driver="GPKG",
            geometry_type="Unknown",
            crs=meta["crs"],
        )
