"""A round that several people share: what they answered, and what became of it."""

import shutil
from pathlib import Path

import numpy as np

from geohsal.geo.patches import slices
from geohsal.io.atomic import read_json
from geohsal.io.label_store import read_label_raster
from geohsal.io.ledger import active_entries, read_ledger, replay
from geohsal.io.manifest import load_manifest
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run, open_run


def copy_of(run: Run, folder: Path) -> Run:
    """A copy that a test may change; reviewed files lie beside it."""
    shutil.copytree(run.path.parent, folder / "own")
    return open_run(folder / "own" / run.path.name)


def reviewed(run: Run) -> list[Path]:
    return [run.path.parent / f"r{number}.gpkg" for number in (1, 2)]


def packages(run: Run) -> list[set[str]]:
    return [set(names) for names in read_json(run.round(0).query_json)["packages"]]


def burnt(run: Run) -> dict[str, np.ndarray]:
    """Classes in the cell of each region, by what training reads."""
    return {
        region.region_id: read_label_raster(run.labels(region.scene_id)).classes[
            slices(region.cell)
        ]
        for region in read_regions(run.round(0).regions)
    }


def follows_the_ledger(run: Run) -> bool:
    entries = active_entries(read_ledger(run.ledger))
    return all(
        replay(
            read_label_raster(run.base_labels(scene.scene_id)),
            [entry for entry in entries if entry.scene_id == scene.scene_id],
        ).equals(read_label_raster(run.labels(scene.scene_id)))
        for scene in load_manifest(run.manifest).scenes
    )
