"""Merged scenes of a query: another budget, or a query after a kill, need not judge them again."""

import json
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.io.atomic import replacing
from geohsal.io.run import Round
from geohsal.query.regions import Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePart:
    """What a judged scene gives to the choice.

    Its regions, its pixels per state, and the mean features (labelled region, feature) of what is
    labelled; no rows unless the acquisition needs them.
    """

    candidates: Candidates
    states: dict[str, int]
    labelled: NDArray[np.float32]


def kept_path(round_: Round, scene_id: str) -> Path:
    """Where a merged scene is kept."""
    return round_.dir / "parts" / f"{scene_id}.npz"


def write_kept(path: Path, unit: str, part: ScenePart) -> None:
    """Keep a merged scene, so that nothing need judge it again."""
    arrays: dict[str, Any] = {
        field.name: np.asarray(getattr(part.candidates, field.name)) for field in fields(Candidates)
    }
    note = json.dumps({"unit": unit, "states": part.states}).encode()
    with replacing(path) as beside:
        np.savez_compressed(
            beside, note=np.frombuffer(note, dtype=np.uint8), labelled=part.labelled, **arrays
        )


def read_kept(path: Path, unit: str) -> ScenePart | None:
    """What `write_kept` wrote; None where there is nothing of this unit, or it is damaged."""
    if not path.exists():
        return None
    try:
        # opened here: numpy leaves a damaged archive open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            note = json.loads(arrays["note"].tobytes())
            if note["unit"] != unit:
                return None
            labelled = arrays["labelled"]
            values = {field.name: arrays[field.name] for field in fields(Candidates)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    values["scene_ids"] = tuple(str(name) for name in values["scene_ids"])
    values["unit"] = str(values["unit"])
    values["region_px"] = int(values["region_px"])
    candidates = Candidates(**values)
    return ScenePart(candidates=candidates, states=note["states"], labelled=labelled)
