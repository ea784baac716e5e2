"""The picture of a scene that a reviewer looks at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.geo.scene import Scene
from geohsal.workflows.round_rasters import view_bands, write_view


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
