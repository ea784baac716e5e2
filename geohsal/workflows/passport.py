"""The papers of a trained model: what it learnt from, and a STAC item for catalogues."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from geohsal.errors import DataError
from geohsal.io.atomic import read_json, read_record, write_json
from geohsal.io.fingerprint import file_sha256
from geohsal.io.run import Round
from geohsal.io.stac_item import ITEM, item_id, model_item
from geohsal.workflows.context import RunContext


def data_hashes(context: RunContext) -> dict[str, dict[str, str]]:
    """By scene: the fingerprint of its image, and of the labels that training read."""
    return {
        scene_id: {
            "image": record.fingerprint,
            "labels": file_sha256(context.run.labels(scene_id)),
        }
        for scene_id, record in context.record.scenes.items()
    }


def write_item(context: RunContext, round_: Round) -> None:
    """Write the STAC item beside the model of a round, unless it is there; model.json must be.

    Models of versions that did not count their parameters get none.

    Raises:
        DataError: the folder cannot be written.
    """
    passport: dict[str, Any] = read_json(round_.model_json)
    path = round_.model_dir / ITEM
    if "parameters" not in passport or (path.exists() and _is_of(path, passport)):
        return
    tiles = (tile for scene_id in context.scenes_with("train") for tile in context.tiles[scene_id])
    item = model_item(
        passport,
        folder=round_.model_dir,
        name=context.manifest.name,
        outlines=[tile.footprint for tile in tiles if tile.footprint is not None],
        created=datetime.now(UTC).replace(microsecond=0),
        torch_version=torch.__version__,
    )
    write_json(path, item)


def _is_of(path: Path, passport: dict[str, Any]) -> bool:
    try:
        return bool(read_record(path, "id")["id"] == item_id(passport))
    except DataError:
        return False
