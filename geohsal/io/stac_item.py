"""A model folder as a STAC item with the Machine Learning Model extension (MLM).

Catalogues of models read it; geohsal itself reads model.json only.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

STAC_VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.6.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
ITEM = "stac-item.json"

_SAFETENSORS = "application/octet-stream; framework=safetensors"
_SHA256 = "1220"
"""What a multihash of SHA-256 begins with."""


def item_id(passport: Mapping[str, Any]) -> str:
    """Name of the item: that of weights and statistics."""
    return f"geohsal-{passport['model_hash'][:16]}"


def model_item(
    passport: Mapping[str, Any],
    *,
    folder: Path,
    name: str,
    outlines: Sequence[BaseGeometry],
    created: datetime,
    torch_version: str,
) -> dict[str, Any]:
    """The STAC item of a model folder, as plain values.

    Args:
        passport: what model.json holds.
        folder: the model folder; sizes of its files are read.
        name: of the run.
        outlines: footprints of what the model was trained on in EPSG:4326; none where scenes have
            no position on Earth: the item then has no geometry.
        created: when, with a time zone.
        torch_version: of the framework.
    """
    area = shapely.box(*shapely.total_bounds(outlines)) if outlines else None
    bounds = {} if area is None else {"bbox": list(area.bounds)}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": item_id(passport),
        "geometry": None if area is None else mapping(area),
        **bounds,
        "properties": {
            "datetime": created.isoformat().replace("+00:00", "Z"),
            "description": f"Land-cover model of the run {name}, round {passport['round']}",
            **_model(passport, name, torch_version),
        },
        "links": [],
        "assets": _assets(passport, folder),
    }


def _model(passport: Mapping[str, Any], name: str, torch_version: str) -> dict[str, Any]:
    model = passport["config"]["model"]
    return {
        "mlm:name": f"geohsal {name}",
        "mlm:architecture": f"{model['arch']} ({model['encoder']})",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": torch_version,
        "mlm:total_parameters": passport["parameters"],
        "mlm:pretrained": True,
        "mlm:pretrained_source": name,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": dict(passport["config"]["train"]),
        "mlm:input": [_input(passport)],
        "mlm:output": [_output(passport)],
    }


def _input(passport: Mapping[str, Any]) -> dict[str, Any]:
    bands, side = passport["bands"], passport["window_px"]
    return {
        "name": f"windows of {len(bands)} bands",
        "bands": [band["name"] for band in bands],
        "input": {
            "shape": [-1, len(bands), side, side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": band["mean"], "stddev": band["std"]} for band in bands
        ],
        "resize_type": None,
        "pre_processing_function": {
            "format": "python",
            "expression": "geohsal.data.dataset:BandScale.apply",
            "description": "scaled values are cut at six standard deviations, 0 where invalid",
        },
    }


def _output(passport: Mapping[str, Any]) -> dict[str, Any]:
    classes, side = passport["classes"], passport["window_px"]
    overlap = passport["window_overlap_px"]
    return {
        "name": "class probabilities",
        "bands": [],
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(classes), side, side],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {
                "value": one["id"],
                "name": one["name"],
                "description": one["description"] or one["name"],
                "color_hint": one["color"].lstrip("#").upper(),
            }
            for one in classes
        ],
        "post_processing_function": {
            "format": "python",
            "expression": "geohsal.training.inference:Predictor.predict",
            "description": f"logits of windows that overlap by {overlap} px are blended",
        },
    }


def _assets(passport: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    bands = [{"name": band["name"]} for band in passport["bands"]]
    roles = {"model.safetensors": ["mlm:model", "mlm:weights", "data"]}
    titles = {
        "model.safetensors": "Teacher, error-mask decoder and friend",
        "statistics.safetensors": "Class statistics of the refinement",
    }
    assets: dict[str, Any] = {
        "passport": {
            "href": "./model.json",
            "type": "application/json",
            "title": "Bands, scales, classes, thresholds, settings, hashes",
            "roles": ["metadata"],
        }
    }
    for file, digest in passport["files"].items():
        own = roles.get(file, ["mlm:statistics", "data"])
        model = {"mlm:artifact_type": "safetensors", "bands": bands} if file in roles else {}
        assets[file.split(".", 1)[0]] = {
            "href": f"./{file}",
            "type": _SAFETENSORS,
            "title": titles[file],
            "roles": own,
            "file:size": (folder / file).stat().st_size,
            "file:checksum": _SHA256 + digest,
            **model,
        }
    return assets
