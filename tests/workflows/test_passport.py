"""The STAC item of a trained model is valid, and fits the folder that it lies in."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pystac import Item, STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from shapely.geometry import box
from stac_model.schema import SCHEMA_URI, MLModelExtension, MLModelProperties
from tiny_run import geohsal

from geohsal.io.atomic import read_json
from geohsal.io.fingerprint import file_sha256
from geohsal.io.run import Run
from geohsal.io.stac_item import model_item
from geohsal.training.model_io import load_model


@pytest.fixture(scope="module")
def item(trained: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((trained.round(0).model_dir / "stac-item.json").read_text())
    return found


def test_the_item_keeps_the_schema_of_stac_and_of_mlm(trained: Run, item: dict[str, Any]) -> None:
    validator = JsonSchemaSTACValidator()
    validator.validate_core(item, STACObjectType.ITEM, "1.1.0")
    assert SCHEMA_URI in item["stac_extensions"]
    properties = MLModelProperties.model_validate(item["properties"])
    model = load_model(trained.round(0).model_dir)
    assert properties.total_parameters == sum(v.numel() for v in model.networks.parameters())
    assert MLModelExtension.ext(Item.from_dict(item)).name == "mlm"
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert [asset["mlm:artifact_type"] for asset in models] == ["safetensors"]


def test_what_is_missing_from_the_item_is_noticed(item: dict[str, Any]) -> None:
    broken = {k: v for k, v in item["properties"].items() if k != "mlm:input"}
    with pytest.raises(ValueError, match="input"):
        MLModelProperties.model_validate(broken)


def test_bands_scales_and_classes_are_those_of_the_model(
    trained: Run, item: dict[str, Any]
) -> None:
    model = load_model(trained.round(0).model_dir)
    [given] = item["properties"]["mlm:input"]
    assert given["bands"] == list(model.bands)
    assert [scale["mean"] for scale in given["value_scaling"]] == list(model.scale.mean)
    [result] = item["properties"]["mlm:output"]
    named = [(one["value"], one["name"]) for one in result["classification:classes"]]
    assert named == [(c.class_id, c.name) for c in model.classes]


def test_files_and_data_have_their_hashes(trained: Run, item: dict[str, Any]) -> None:
    folder = trained.round(0).model_dir
    for name in ("model", "statistics"):
        asset = item["assets"][name]
        content = (folder / asset["href"]).read_bytes()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset["file:size"] == len(content)
    data = read_json(trained.round(0).model_json)["data"]
    for scene_id, hashes in data.items():
        assert hashes["labels"] == file_sha256(trained.labels(scene_id))
        assert len(hashes["image"]) >= 32


def test_the_geometry_is_where_the_model_was_trained(
    trained: Run, item: dict[str, Any], tmp_path: Path
) -> None:
    assert -180 <= item["bbox"][0] < item["bbox"][2] <= 180
    passport = read_json(trained.round(0).model_json)
    common = {
        "folder": trained.round(0).model_dir,
        "name": "x",
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "torch_version": "2",
    }
    placed = model_item(passport, outlines=[box(7, 46, 7.1, 46.1), box(8, 46, 9, 47)], **common)
    assert placed["bbox"] == [7, 46, 9, 47]
    nowhere = model_item(passport, outlines=[], **common)
    assert nowhere["geometry"] is None
    assert "bbox" not in nowhere
    JsonSchemaSTACValidator().validate_core(nowhere, STACObjectType.ITEM, "1.1.0")


def test_a_training_killed_before_its_item_gets_its_own(trained: Run, tmp_path: Path) -> None:
    run = Run(path=shutil.copytree(trained.path, tmp_path / "run"))
    path = run.round(0).model_dir / "stac-item.json"
    written = path.read_text()
    path.unlink()
    geohsal("train", run.path)
    own = json.loads(path.read_text())["id"]
    assert own == json.loads(written)["id"]
    path.write_text(written.replace(own, "geohsal-of-another-model"))
    geohsal("train", run.path)
    assert json.loads(path.read_text())["id"] == own
