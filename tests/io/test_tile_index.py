import json

import geopandas
import pyarrow.parquet as pq
import pytest
from rasterio.windows import Window
from shapely.geometry import box

from geohsal.errors import DataError
from geohsal.geo.scene import Tile
from geohsal.io.tile_index import read_tiles, write_tiles


def tile(number: int, *, local: bool = False) -> Tile:
    return Tile(
        tile_id=f"north_r000000_c{number:06d}",
        scene_id="north",
        core=Window(number, 0, 256, 200),
        window=Window(max(0, number - 32), 0, 288, 232),
        split="train",
        valid_share=1 / 3,
        labelled_share=0.1,
        footprint=None if local else box(number / 1e3, 50, number / 1e3 + 0.1, 50.1),
    )


def test_tiles_come_back_as_they_were(tmp_path):
    path = tmp_path / "tiles.parquet"
    tiles = [tile(0), tile(256), tile(512)]
    write_tiles(path, tiles)
    assert read_tiles(path) == tiles
    first = path.read_bytes()
    write_tiles(path, tiles)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiles.parquet"]


def test_it_is_geoparquet_in_longitude_and_latitude(tmp_path):
    path = tmp_path / "tiles.parquet"
    write_tiles(path, [tile(0), tile(256)])
    frame = geopandas.read_parquet(path)
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry.name == "footprint"
    assert frame.total_bounds == pytest.approx([0, 50, 0.356, 50.1])
    assert pq.read_schema(path).metadata[b"format_version"] == b"1"


def test_local_tiles_have_null_footprints(tmp_path):
    path = tmp_path / "tiles.parquet"
    write_tiles(path, [tile(0, local=True)])
    assert read_tiles(path)[0].footprint is None
    assert geopandas.read_parquet(path).footprint.isna().all()
    assert "bbox" not in json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["footprint"]


def test_an_index_without_tiles_is_read(tmp_path):
    write_tiles(tmp_path / "t.parquet", [])
    assert read_tiles(tmp_path / "t.parquet") == []


def test_damage_and_other_versions_are_named(tmp_path):
    path = tmp_path / "tiles.parquet"
    with pytest.raises(DataError, match=r"tiles\.parquet: cannot be read"):
        read_tiles(path)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"cannot be read .*; delete it and run geohsal tile again"):
        read_tiles(path)
    write_tiles(path, [tile(0)])
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"format_version": b"9"}), path)
    with pytest.raises(DataError, match="a tile index of format 9, this geohsal reads 1"):
        read_tiles(path)


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "tiles.parquet"
    table = pq.read_table(write_other(path))
    pq.write_table(table.drop_columns(["core_row_off"]), path)
    with pytest.raises(DataError, match=r"tiles\.parquet: cannot be read"):
        read_tiles(path)


def write_other(path):
    write_tiles(path, [tile(0)])
    return path
