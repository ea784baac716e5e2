"""Manifests for the real scenes, for the tests marked `real` and the benchmarks."""

import json
import shutil
from pathlib import Path
from typing import Any

import rasterio
import yaml
from rasterio.enums import Resampling


def write_zion(path: Path, data: Path, *, seed: int = 0, block_px: int = 256) -> Path:
    """Landsat 8 over Zion: 171 training polygons, NLCD as truth, half of the blocks for testing."""
    folder = data / "zion_landsat"
    classes = json.loads((folder / "classes.json").read_text())["classes"]
    return _write(
        path,
        {
            "version": 1,
            "name": "zion",
            "classes": [
                {"id": number, "name": entry["name"], "color": entry["color"]}
                for number, entry in enumerate(classes)
            ],
            "bands": ["blue", "green", "red", "nir"],
            "blocks": {
                "size_px": block_px,
                "buffer_px": 16,
                "shares": {"train": 0.5, "val": 0.0, "test": 0.5},
                "seed": seed,
            },
            "scenes": [
                {
                    "id": "zion",
                    "image": str(folder / "zion_landsat8_20150818_b2345.tif"),
                    "bands": {"blue": 1, "green": 2, "red": 3, "nir": 4},
                    "labels": {
                        "path": str(folder / "zion_training_polygons.gpkg"),
                        "field": "class_name",
                    },
                    "truth": {
                        "path": str(folder / "zion_labels_8class.tif"),
                        "values": {entry["id"]: entry["name"] for entry in classes},
                    },
                    "split": "blocks",
                }
            ],
        },
    )


def write_landsat7(path: Path, data: Path) -> Path:
    """Landsat 7: 30 shapefile polygons, 8 bands int16, one of them constant."""
    folder = data / "landsat7_polygons"
    names = ["forest", "water", "herbaceous", "barren", "urban"]
    colors = ["#1b6b2f", "#2b7bba", "#a6d96a", "#f0c75e", "#c0392b"]
    bands = ["b1", "b2", "b3", "b4", "b5", "b7", "b6", "fmask"]
    return _write(
        path,
        {
            "version": 1,
            "name": "landsat7",
            "classes": [
                {"id": number, "name": name, "color": color}
                for number, (name, color) in enumerate(zip(names, colors, strict=True))
            ],
            "bands": bands,
            "scenes": [
                {
                    "id": "p022r049",
                    "image": str(folder / "LE70220491999322EDC01_stack.tif"),
                    "bands": {band: number for number, band in enumerate(bands, start=1)},
                    "labels": str(folder / "training_data.shp"),
                }
            ],
        },
    )


def write_dubai(path: Path, data: Path, *, train: tuple[int, ...] = (1,), test: int = 2) -> Path:
    """Dubai: very high resolution, dense raster labels, no position on Earth."""
    folder = data / "dubai"
    classes = json.loads((folder / "classes.json").read_text())["classes"][1:]
    values = {entry["id"]: entry["name"] for entry in classes}

    def scene(number: int, split: str) -> dict[str, Any]:
        labels = {
            "path": str(folder / "labels" / f"dubai_scene{number}.tif"),
            "values": values,
            "ignore": [0],
        }
        return {
            "id": f"scene{number}",
            "image": str(folder / "images" / f"dubai_scene{number}.tif"),
            "bands": {"red": 1, "green": 2, "blue": 3},
            ("labels" if split == "train" else "truth"): labels,
            "split": split,
        }

    return _write(
        path,
        {
            "version": 1,
            "name": "dubai",
            "classes": [
                {"id": number, "name": entry["name"], "color": entry["color"]}
                for number, entry in enumerate(classes)
            ],
            "bands": ["red", "green", "blue"],
            "scenes": [*(scene(number, "train") for number in train), scene(test, "test")],
        },
    )


def write_dubai_oracle(
    path: Path,
    folder: Path,
    *,
    train: tuple[int, ...] = (1, 3, 5),
    val: tuple[int, ...] = (4,),
    test: tuple[int, ...] = (2, 6),
) -> Path:
    """Dubai with truth and no label in its train scenes: for a simulation that asks for all.

    `folder` holds images/, labels/ and classes.json; val scenes have their labels.
    """
    classes = json.loads((folder / "classes.json").read_text())["classes"][1:]

    def scene(number: int, split: str) -> dict[str, Any]:
        return {
            "id": f"scene{number}",
            "image": str(folder / "images" / f"dubai_scene{number}.tif"),
            "bands": {"red": 1, "green": 2, "blue": 3},
            ("labels" if split == "val" else "truth"): {
                "path": str(folder / "labels" / f"dubai_scene{number}.tif"),
                "values": {entry["id"]: entry["name"] for entry in classes},
                "ignore": [0],
            },
            "split": split,
        }

    splits = [("train", train), ("val", val), ("test", test)]
    return _write(
        path,
        {
            "version": 1,
            "name": "dubai",
            "classes": [
                {"id": number, "name": entry["name"], "color": entry["color"]}
                for number, entry in enumerate(classes)
            ],
            "bands": ["red", "green", "blue"],
            "scenes": [scene(number, split) for split, numbers in splits for number in numbers],
        },
    )


def halve_dubai(data: Path, folder: Path) -> Path:
    """Write the Dubai scenes at half resolution (means; labels by the nearest pixel)."""
    source = data / "dubai"
    for kind, resampling in (("images", Resampling.average), ("labels", Resampling.nearest)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / kind).glob("*.tif")):
            if not (folder / kind / path.name).exists():
                _halve(path, folder / kind / path.name, resampling)
    shutil.copyfile(source / "classes.json", folder / "classes.json")
    return folder


def _halve(source: Path, target: Path, resampling: Resampling) -> None:
    with rasterio.open(source) as scene:
        height, width = scene.height // 2, scene.width // 2
        pixels = scene.read(out_shape=(scene.count, height, width), resampling=resampling)
        scale = scene.transform.scale(scene.width / width, scene.height / height)
        profile = scene.profile | {
            "height": height,
            "width": width,
            "transform": scene.transform @ scale,
        }
    part = target.with_suffix(".part.tif")
    with rasterio.open(part, "w", **profile) as out:
        out.write(pixels)
    part.replace(target)


def _write(path: Path, manifest: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(manifest, sort_keys=False), "utf-8")
    return path
