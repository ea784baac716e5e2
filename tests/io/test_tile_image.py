import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.geo.scene import Scene
from geohsal.io.tile_image import write_tile_image


def test_a_tile_lies_where_its_window_lies(tmp_path):
    scene = Scene(
        scene_id="north",
        crs=CRS.from_epsg(32612),
        transform=Affine(30, 0, 301_905, 0, -30, 4_154_085),
        height=100,
        width=100,
        bands=("red", "nir"),
    )
    pixels = np.random.default_rng(0).random((2, 20, 30), dtype=np.float32)
    valid = np.ones((20, 30), dtype=bool)
    valid[:3] = False
    path = tmp_path / "patches" / "t.tif"
    write_tile_image(path, pixels, valid, scene=scene, window=Window(10, 40, 30, 20))
    with rasterio.open(path) as found:
        assert found.transform == Affine(30, 0, 301_905 + 300, 0, -30, 4_154_085 - 1200)
        assert found.crs == scene.crs
        assert found.descriptions == ("red", "nir")
        np.testing.assert_array_equal(found.read(), pixels)
        np.testing.assert_array_equal(found.read_masks(1) > 0, valid)
    assert [entry.name for entry in path.parent.iterdir()] == ["t.tif"]
