"""GeoPackages made of the same are the same bytes, whatever the clock says in between."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import shapely
from shapely.geometry import MultiPolygon

from geohsal.io import geopackage, polygon_file
from geohsal.io.geopackage import Table, write_geopackage
from geohsal.io.polygon_file import PolygonBatch, PolygonLayer, write_polygons
from geohsal.io.review_schema import Field, Layer

MAP = Layer(
    name="map",
    title="Map",
    description="",
    fields=(Field(name="area_m2", kind="real", alias="Area"),),
)
BOX = shapely.box(5e5, 5e6, 5e5 + 10, 5e6 + 10)


def review(path: Path) -> None:
    table = Table(
        layer=MAP,
        crs="EPSG:32632",
        geometries=[MultiPolygon([BOX])],
        columns={"area_m2": [100.0]},
    )
    write_geopackage(path, [table], classes=[], provenance={})


def export(path: Path) -> None:
    rows = PolygonBatch(polygons=[BOX], columns={"area_m2": [100.0]})  # type: ignore[arg-type]
    layer = PolygonLayer(layer=MAP, crs="EPSG:32632", batches=[rows])
    write_polygons(path, [layer], classes=[], record={})


@pytest.mark.parametrize(
    ("write", "room"), [(review, geopackage), (export, polygon_file)], ids=["review", "export"]
)
def test_gdal_writes_the_time_that_geohsal_writes(
    write: Callable[[Path], None], room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write(tmp_path / "whole.gpkg")
    write(tmp_path / "again.gpkg")
    assert (tmp_path / "again.gpkg").read_bytes() == (tmp_path / "whole.gpkg").read_bytes()
    monkeypatch.setattr(room, "add_extras", lambda *_, **__: None)
    write(tmp_path / "gdal.gpkg")
    with closing(sqlite3.connect(tmp_path / "gdal.gpkg")) as connection:
        times = [time for (time,) in connection.execute("SELECT last_change FROM gpkg_contents")]
    assert times == ["2023-11-14T22:13:20.000Z"]
