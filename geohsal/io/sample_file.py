"""A probability sample for review in QGIS: one square per drawn pixel, without the map's word."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import box

from geohsal.errors import ReviewError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.atomic import replacing
from geohsal.io.geopackage import RowList, place, scene_tables, write_geopackage
from geohsal.io.gpkg_read import layer_names, read_provenance, read_rows, settled_copy
from geohsal.io.review_rows import parse_class
from geohsal.io.review_schema import REGIONS, Field, Layer

FORMAT_VERSION = 1
KIND = "geohsal sample"
SAMPLE = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePoint:
    """A drawn pixel; `map_class` is its stratum, `draws` how often it was drawn."""

    sample_id: str
    scene_id: str
    row: int
    col: int
    map_class: int
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How a sample was drawn.

    `areas` by class id are the mapped areas in `unit` (m2 or pixels); `map_of` says which map;
    `strata` gives the class of each point, which the layer does not show.
    """

    run: str
    map_of: str
    map_sha256: str
    seed: int
    unit: str
    class_names: tuple[str, ...]
    areas: tuple[float, ...]
    strata: dict[str, int]
    draws: dict[str, int]


def _layer(name: str) -> Layer:
    return Layer(
        name=name,
        title="Sample" if name == SAMPLE else f"Sample ({name})",
        description="Look at each square and set what it is on the ground, then save",
        fields=(
            Field(name="sample_id", kind="text", alias="Point"),
            Field(name="scene_id", kind="text", alias="Scene"),
            Field(
                name="reference_class",
                kind="int",
                alias="On the ground",
                note="empty: not looked at, or cannot be told",
                editable=True,
                choices="class",
            ),
            Field(name="notes", kind="text", alias="Notes", editable=True),
        ),
    )


def write_sample(
    path: Path,
    points: Sequence[SamplePoint],
    *,
    design: Design,
    scenes: Mapping[str, Scene],
    classes: Sequence[ClassInfo],
) -> None:
    """Write the points as given; scenes without a position get layers of their own.

    Raises:
        DataError: the file cannot be written.
    """
    items = [(scenes[point.scene_id], point) for point in points]
    tables = scene_tables(SAMPLE, items, layer=_layer, add=_add)
    record = {**asdict(design), "format_version": FORMAT_VERSION, "kind": KIND}
    with replacing(path) as part:
        write_geopackage(part, tables, classes=classes, provenance=record)


def _add(rows: RowList, point: SamplePoint, scene: Scene, crs: CRS | None) -> None:
    square = box(point.col, point.row, point.col + 1, point.row + 1)
    rows.add(
        place(square, scene, crs, window=Window(0, 0, 1, 1)),
        {"sample_id": point.sample_id, "scene_id": point.scene_id, "notes": ""},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A reviewed sample: the class of each answered point, and the design it belongs to."""

    design: Design
    classes: dict[str, int]


def read_sample(path: Path) -> Answers:
    """What a person has said of the points; points without a class are left out.

    Raises:
        ReviewError: it is no sample that geohsal drew (a review file of asked regions is refused
            with the reason), or a row is unknown, stands twice or has a class that does not exist.
    """
    with settled_copy(path) as copy:
        record = read_provenance(copy) or {}
        names = [name.lower() for name in layer_names(copy, where=path)]
        if record.get("kind") != KIND:
            raise ReviewError(f"{path}: {_no_sample(names)}; draw a sample with --design -o FILE")
        design = _design(path, record)
        tables = [
            read_rows(copy, name, fields=("sample_id", "reference_class"), where=path)
            for name in names
            if name.startswith(SAMPLE)
        ]
    found: dict[str, int] = {}
    seen: set[str] = set()
    for rows in tables:
        for number, fid in enumerate(rows.fids):
            where = f"{path}: {rows.layer} feature {fid}"
            sample_id = str(rows.columns["sample_id"][number])
            if sample_id not in design.strata:
                raise ReviewError(f"{where}: point {sample_id} was not drawn; delete the row")
            if sample_id in seen:
                raise ReviewError(f"{where}: point {sample_id} stands twice; delete one row")
            seen.add(sample_id)
            said = rows.columns["reference_class"][number]
            class_id, problem = parse_class(said, len(design.class_names))
            if problem:
                raise ReviewError(f"{where}: reference_class {problem}")
            if class_id is not None:
                found[sample_id] = class_id
    return Answers(design=design, classes=found)


def _no_sample(layers: Sequence[str]) -> str:
    if REGIONS in layers:
        return (
            "holds regions that were chosen because the map is likely wrong there; as a reference "
            "they would make the map look worse than it is and bias areas"
        )
    return "is no sample that geohsal drew, so the chance of each point is unknown"


def _design(path: Path, record: Mapping[str, Any]) -> Design:
    try:
        values = {name: record[name] for name in Design.__dataclass_fields__}
        values["class_names"] = tuple(str(name) for name in values["class_names"])
        values["areas"] = tuple(float(area) for area in values["areas"])
        values["strata"] = {str(k): int(v) for k, v in values["strata"].items()}
        values["draws"] = {str(k): int(v) for k, v in values["draws"].items()}
        design = Design(**values)
        known = range(len(design.class_names))
        sound = len(design.areas) == len(known) and design.draws.keys() == design.strata.keys()
        if not sound or not all(c in known for c in design.strata.values()):
            raise ValueError("classes do not fit")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReviewError(
            f"{path}: its record of the design is damaged ({error}); draw the sample again"
        ) from None
    return design
