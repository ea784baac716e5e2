"""What `tile` and `predict` made of a raster, against what rasterio says of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from killing import leftovers
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.io.run import open_run
from geohsal.io.run_tables import SceneRecord, read_summary
from geohsal.workflows.predict_write import KINDS


def valid_of(path: Path, numbers: Sequence[int]) -> NDArray[np.bool_]:
    """Pixels (row, col) that rasterio masks in none of these bands and that float32 can hold."""
    with rasterio.open(path) as source:
        good = np.ones(source.shape, dtype=bool)
        tags = dict(zip(source.indexes, source.colorinterp, strict=True))
        for number in numbers:
            if all(tags[other] is not ColorInterp.alpha for other in numbers):
                good &= source.read_masks(number) > 0
            if np.issubdtype(source.dtypes[number - 1], np.floating):
                with np.errstate(invalid="ignore"):
                    good &= np.abs(source.read(number)) <= np.finfo(np.float32).max
    return good


def check_tiled(run_dir: Path, scene_id: str, path: Path, numbers: Sequence[int]) -> SceneRecord:
    """Place, size and validity of a tiled scene; its label raster lies on its pixels."""
    run = open_run(run_dir)
    record = read_summary(run).scenes[scene_id]
    with rasterio.open(path) as source, rasterio.open(run.labels(scene_id)) as labels:
        scene = record.scene
        assert (scene.shape, scene.crs) == (source.shape, source.crs)
        assert scene.transform == source.transform
        assert (labels.shape, labels.crs) == (source.shape, source.crs)
        assert labels.transform == source.transform
    assert record.valid_pixels == valid_of(path, numbers).sum()
    assert not leftovers(run_dir)
    return record


def check_maps(out: Path, name: str, path: Path, numbers: Sequence[int]) -> None:
    """The five maps of a raster: place, size, and nodata exactly where it has none."""
    valid = valid_of(path, numbers)
    with rasterio.open(path) as source:
        crs, transform, shape = source.crs, source.transform, source.shape
    for kind in KINDS:
        with rasterio.open(out / f"{name}_{kind}.tif") as target:
            assert (target.shape, target.crs) == (shape, crs), kind
            assert target.transform == transform, kind
            for number in target.indexes:
                np.testing.assert_array_equal(target.read_masks(number) > 0, valid, kind)
            values = target.read()
        if kind == "class":
            assert (values[0] == IGNORE_INDEX).sum() == (~valid).sum()
        elif kind == "state":
            assert (values[0] == PixelState.NODATA).sum() == (~valid).sum()
        else:
            assert np.isfinite(values[:, valid]).all()
            assert ((values[:, valid] >= 0) & (values[:, valid] <= 1)).all()
    assert not leftovers(out)
