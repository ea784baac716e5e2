"""Model folders for rasters of any bands: one is trained on one band, the others borrow from it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
import yaml
from affine import Affine
from tiny_run import TINY_SETTINGS, geohsal

from geohsal.data.dataset import BandScale
from geohsal.io.run import open_run
from geohsal.models.tsf import build_inference_networks
from geohsal.training.model_io import load_model, save_model

SHORT = (
    *("--set", "train.steps=2", "--set", "train.checkpoints=1", "--set", "model.window_px=256"),
    *("--set", "ssl.friend=none", "--set", "emd.enabled=false"),
)
CLASSES = (
    {"id": 0, "name": "dark", "color": "#2060a0"},
    {"id": 1, "name": "light", "color": "#d0c080"},
)


def train_one_band(folder: Path) -> Path:
    """A model of one band and two classes that two steps have taught; fast on large rasters."""
    classes = np.zeros((64, 64), np.uint8)
    classes[:, 32:] = 1
    noise = np.random.default_rng(0).integers(0, 20, classes.shape, dtype=np.uint8)
    for name, array in (("image", 50 + 150 * classes + noise), ("labels", classes)):
        profile = {"count": 1, "height": 64, "width": 64, "dtype": "uint8", "crs": "EPSG:32632"}
        profile["transform"] = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", **profile) as target:
            target.write(array.astype(np.uint8), 1)
    scene = {"id": "halves", "image": "image.tif", "labels": "labels.tif"}
    manifest = write_manifest(folder / "manifest.yaml", bands=["b1"], scenes=[scene])
    (folder / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
    geohsal("tile", manifest, "-o", folder / "run", "-c", folder / "settings.yaml", *SHORT)
    geohsal("train", folder / "run", "--device", "cpu")
    return open_run(folder / "run").round(0).model_dir


def write_manifest(
    path: Path, *, bands: Sequence[str], scenes: Sequence[dict[str, object]]
) -> Path:
    """A manifest of two classes."""
    content = {"version": 1, "name": "odd", "classes": list(CLASSES)}
    content |= {"bands": list(bands), "scenes": list(scenes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def model_of(bands: Sequence[str], *, like: Path, folder: Path) -> Path:
    """A model of these bands: random networks with the statistics of another model."""
    other = load_model(like)
    torch.manual_seed(0)
    networks = build_inference_networks(other.config, bands=len(bands), classes=len(other.classes))
    save_model(
        folder,
        networks,
        refine_state=other.refine_state,
        config=other.config,
        bands=tuple(bands),
        scale=BandScale(mean=(0.0,) * len(bands), std=(1000.0,) * len(bands)),
        classes=other.classes,
        extra={},
    )
    return folder
