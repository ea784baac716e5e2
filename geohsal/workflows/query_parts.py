"""Finished scenes of a query under way: a killed query need not judge them again."""

import json
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from geohsal.io.atomic import replacing
from geohsal.query.regions import Candidates


def write_part(path: Path, unit: str, candidates: Candidates, states: dict[str, int]) -> None:
    """Keep the candidates of a finished scene, so that a killed query need not judge it again."""
    arrays: dict[str, Any] = {
        field.name: np.asarray(getattr(candidates, field.name)) for field in fields(candidates)
    }
    note = np.frombuffer(json.dumps({"unit": unit, "states": states}).encode(), dtype=np.uint8)
    with replacing(path) as part:
        np.savez_compressed(part, note=note, **arrays)


def read_part(path: Path, unit: str) -> tuple[Candidates, dict[str, int]] | None:
    """What `write_part` kept; None where there is nothing of this unit, or it is damaged."""
    if not path.exists():
        return None
    try:
        # opened here: numpy leaves a damaged archive open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            note = json.loads(arrays["note"].tobytes())
            if note["unit"] != unit:
                return None
            values = {field.name: arrays[field.name] for field in fields(Candidates)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    values["scene_ids"] = tuple(str(name) for name in values["scene_ids"])
    values["region_px"] = int(values["region_px"])
    return Candidates(**values), note["states"]
