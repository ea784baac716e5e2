"""The picture of a scene that a reviewer looks at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from review_factory import GRIDS, SIDE, make_maps, reader_of

from geohsal.errors import DataError
from geohsal.geo.scene import Scene
from geohsal.io.cog import write_cog
from geohsal.io.run import Round
from geohsal.workflows import round_rasters
from geohsal.workflows.round_rasters import (
    RoundRasters,
    read_states,
    read_teacher,
    view_bands,
    write_view,
)


@dataclass
class Source:
    """A scene in memory, as `write_view` reads it."""

    scene: Scene
    image: np.ndarray
    valid: np.ndarray

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        at = window.toslices()
        return self.image[(slice(None), *at)], self.valid[at]


def source(bands: tuple[str, ...], side: int = 64) -> Source:
    """Values from 0 to 10 000 in band 0, shifted in the others; the last column is not valid."""
    scene = Scene(
        scene_id="s",
        crs=CRS.from_epsg(32632),
        transform=Affine(10, 0, 5e5, 0, -10, 5.2e6),
        height=side,
        width=side,
        bands=bands,
    )
    ramp = np.linspace(0, 10_000, side * side, dtype=np.float32).reshape(side, side)
    valid = np.ones((side, side), bool)
    valid[:, -1] = False
    image = np.stack([ramp + 500 * number for number in range(len(bands))])
    return Source(scene, np.where(valid, image, 0), valid)


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        ("blue green red nir", "red green blue"),
        ("Red Green Blue", "Red Green Blue"),
        ("nir red green", "nir red green"),
        ("green red nir dsm", "nir red green"),
        ("red nir swir1", "swir1 nir red"),
        ("b1 b2 b3 b4", "b1 b2 b3"),
        ("vv vh", "vv"),
        ("pan", "pan"),
    ],
)
def test_bands_of_the_picture_go_by_name(bands: str, shown: str) -> None:
    names = bands.split()
    assert [names[band] for band in view_bands(names)] == shown.split()


@pytest.mark.parametrize("bands", [("red", "green", "blue"), ("pan",)])
def test_picture_is_stretched_and_0_is_nodata(tmp_path: Path, bands: tuple[str, ...]) -> None:
    write_view(tmp_path / "v.tif", source(bands))
    with rasterio.open(tmp_path / "v.tif") as view:
        assert view.nodata == 0
        assert view.descriptions == bands
        pixels = view.read()
    assert (pixels[:, :, -1] == 0).all()
    inside = pixels[:, :, :-1]
    assert inside.min() == 1
    assert inside.max() == 255
    assert np.isclose((inside[0] == 1).mean(), 0.02, atol=0.01)
    assert np.isclose((inside[0] == 255).mean(), 0.02, atol=0.01)


def test_a_large_picture_has_overviews(tmp_path: Path) -> None:
    write_view(tmp_path / "v.tif", source(("pan",), side=1100))
    with rasterio.open(tmp_path / "v.tif") as view:
        assert view.overviews(1) == [2, 4]
        assert view.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_constant_band_is_no_error(tmp_path: Path) -> None:
    flat = source(("pan",))
    flat.image[:] = 7
    write_view(tmp_path / "v.tif", flat)
    with rasterio.open(tmp_path / "v.tif") as view:
        assert set(np.unique(view.read(1)[:, :-1])) == {1}


@pytest.fixture
def round_(tmp_path: Path) -> Round:
    """A round with the maps of three scenes."""
    round_ = Round(index=0, run_dir=tmp_path)
    for seed in range(3):
        crs, transform = GRIDS["utm"]
        scene = Scene(
            scene_id=f"s{seed}",
            crs=crs,
            transform=transform,
            height=SIDE,
            width=SIDE,
            bands=("red",),
        )
        maps = make_maps(seed)
        valid = maps.state != 0
        bands = {
            "class": (np.stack([maps.refined, maps.teacher]), 255),
            "state": (maps.state, 0),
            "confidence": (np.where(valid, maps.confidence, np.float32(np.nan)), np.nan),
            "error": (np.where(valid, maps.error, np.float32(np.nan)), np.nan),
        }
        for kind, (array, nodata) in bands.items():
            names = ["refined", "teacher"] if kind == "class" else [kind]
            write_cog(
                round_.raster(scene.scene_id, kind),  # type: ignore[arg-type]
                array,
                scene=scene,
                nodata=nodata,
                band_names=names,
            )
    return round_


def test_windows_are_read_as_they_were_written(
    round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more rasters are asked for than may stay open."""
    monkeypatch.setattr(round_rasters, "OPEN_FILES", 5)
    window = Window(3, 2, 30, 20)
    with RoundRasters(round_) as rasters:
        for seed in (0, 1, 2, 0):
            wanted = reader_of({"s": make_maps(seed)})("s", window)
            found = rasters.maps(f"s{seed}", window)
            valid = wanted.state != 0
            assert np.array_equal(found.refined, wanted.refined)
            assert np.array_equal(found.teacher, wanted.teacher)
            assert np.array_equal(found.state, wanted.state)
            assert np.array_equal(found.confidence, np.where(valid, wanted.confidence, 0))
            assert np.array_equal(found.error, np.where(valid, wanted.error, 0))
            assert not found.margin.any()
            assert not found.undecided.any()
            assert (found.plar == 255).all()


def test_a_missing_raster_is_named(round_: Round) -> None:
    scene = Scene(
        scene_id="s1", crs=None, transform=Affine.identity(), height=SIDE, width=SIDE, bands=("r",)
    )
    window = Window(0, 0, 8, 8)
    assert read_states(round_, scene, window).shape == (8, 8)
    round_.raster("s1", "class").unlink()
    with pytest.raises(DataError, match=r"s1_class\.tif: cannot be read .*query --overwrite"):
        read_teacher(round_, scene, window)
