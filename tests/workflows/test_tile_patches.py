"""`--patches` is for other programs: torchgeo must read it."""

from pathlib import Path

import numpy as np
import pytest

from geohsal.config import Config, TileConfig
from geohsal.workflows.tile import tile


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rasterio 1.4
def test_patches_open_as_a_torchgeo_raster_dataset(tmp_path: Path, make_raster, make_manifest):
    from torchgeo.datasets import RasterDataset

    pixels = np.random.default_rng(0).integers(1, 200, size=(3, 40, 64)).astype(np.uint8)
    make_raster("north.tif", pixels)
    config = Config(seed=0, tile=TileConfig(core_px=32, overlap_px=0))
    tile(make_manifest(), tmp_path / "run", config=config, patches=True)

    class Patches(RasterDataset):
        filename_glob = "*.tif"
        is_image = True

    dataset = Patches(paths=str(tmp_path / "run" / "patches"))
    assert len(dataset) == 4
    image = dataset[dataset.bounds]["image"]
    np.testing.assert_array_equal(image.numpy(), pixels.astype(np.float32))
