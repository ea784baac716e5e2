"""Runs for reports: tiled for real, with rounds whose records and rasters are made up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geohsal.config import load_config
from geohsal.geo.scene import ClassInfo, QueryRegion, Scene, SceneMaps
from geohsal.geo.states import PixelState
from geohsal.io.atomic import write_json
from geohsal.io.cog import write_cog
from geohsal.io.gdal import quiet
from geohsal.io.ledger import LedgerEntry, append
from geohsal.io.manifest import load_manifest
from geohsal.io.round_record import write_regions
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows.map_writer import open_maps
from geohsal.workflows.tile import tile

SIDE, CELL = 96, 16
COLORS = ("#1b6b2f", "#c0392b", "#2f6fb0", "#d9b44a")
NAMES = ("woodland", "built-up", "water", "arable land")
HASH = "0123456789abcdef" * 4
PATCHES = {3: (slice(40, 52), slice(10, 22)), 1: (slice(60, 66), slice(60, 70))}
"""Corrected pixels of every scene by the class they got: 144 and 60 of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A run with its scenes and classes."""

    run: Run
    scenes: dict[str, Scene]
    classes: tuple[ClassInfo, ...]

    def name(self, class_id: int) -> str:
        return self.classes[class_id].name


def make_run(
    folder: Path,
    *,
    names: Sequence[str] = NAMES,
    scenes: Sequence[str] = ("north", "south"),
    local: bool = False,
) -> Made:
    """A tiled run without labels; its scenes are pictures of 96 x 96 pixels of 10 m."""
    picture = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
    entries: list[dict[str, Any]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene_id in enumerate(scenes):
        place = Affine(10, 0, 500_000 + 2000 * number, 0, -10, 5_200_000)
        with (
            quiet(),
            rasterio.open(
                folder / f"{scene_id}.tif", "w", driver="GTiff", count=3, height=SIDE, width=SIDE,
                dtype="uint8", **({} if local else {"crs": "EPSG:32632", "transform": place}),
            ) as out,
        ):  # fmt: skip
            out.write(picture)
        entry = {"id": scene_id, "image": f"{scene_id}.tif"}
        entries.append(entry | ({"crs": "local"} if local else {}))
    manifest = {
        "version": 1,
        "name": 'my <town> & "fields"',
        "classes": [
            {"id": number, "name": name, "color": COLORS[number % len(COLORS)]}
            for number, name in enumerate(names)
        ],
        "bands": ["red", "green", "blue"],
        "scenes": entries,
    }
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), "utf-8")
    tile(path, folder / "run", config=load_config("cpu-small"))
    run = open_run(folder / "run")
    classes = tuple(load_manifest(run.manifest).classes)
    return Made(run=run, scenes=load_scenes(run), classes=classes)


def scene_maps(classes: int, seed: int = 0) -> SceneMaps:
    """Blobs of classes, mostly trusted; the first rows have no data, `PATCHES` are corrected."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=(classes, SIDE, SIDE)), (0, 5, 5))
    teacher = blobs.argmax(0).astype(np.uint8)
    state = np.full((SIDE, SIDE), PixelState.TRUSTED, np.uint8)
    state[70:90, 5:30] = PixelState.AMBIGUOUS
    error = rng.random((SIDE, SIDE)).astype(np.float32) * np.float32(0.4)
    refined = teacher.copy()
    for class_id, patch in PATCHES.items():
        teacher[patch], refined[patch] = 0, class_id
        state[patch], error[patch] = PixelState.CORRECTED, 0.75
    for array, value in ((teacher, 255), (refined, 255), (state, PixelState.NODATA)):
        array[:4] = value
    zeros = np.zeros_like(error)
    return SceneMaps(
        teacher=teacher, refined=refined, plar=refined, state=state, confidence=1 - error,
        error=error, margin=zeros, undecided=zeros,
    )  # fmt: skip


def view(seed: int = 0) -> NDArray[np.uint8]:
    """Three soft bands without data in the first rows."""
    noise = np.random.default_rng(seed).normal(size=(3, SIDE, SIDE))
    soft = ndimage.gaussian_filter(noise, (0, 3, 3))
    levels = np.clip(128 + 700 * soft, 1, 255).astype(np.uint8)
    levels[:, :4] = 0
    return levels


def regions_of(scene: Scene, count: int = 3) -> list[QueryRegion]:
    """Cells along the diagonal; the last is an audit, the first lacks a corner."""
    found = []
    for rank in range(1, count + 1):
        mask = np.ones((CELL, CELL), np.bool_)
        mask[:5, :5] = rank != 1
        found.append(
            QueryRegion(
                region_id=f"{scene.scene_id}-{rank}", scene_id=scene.scene_id, round=0, rank=rank,
                cell=Window(CELL * rank, CELL * rank, CELL, CELL), mask=mask, score=1 / rank,
                reason="half of it <undecided>", error_probability=0.4, undecided_share=0.5,
                teacher_class=0, plar_class=None, margin=0.1,
                area_m2=None if scene.local else 100.0 * int(mask.sum()), cost_min=0.5,
                audit=rank == count,
            )
        )  # fmt: skip
    return found


def train_round(made: Made, index: int = 0, *, abstaining: Sequence[int] = (2,)) -> Round:
    """model.json of a round, with limits of every class."""
    round_ = made.run.round(index)
    count = len(made.classes)
    limit = {"source": "calibrated", "value": 12.5, "reason": "9 regions <withheld>"}
    none = {"source": "agreement", "value": None, "reason": "2 regions do not make a gate"}
    health = dict.fromkeys(
        ("auroc", "aupr", "auroc_confident", "ece", "ece_calibrated", "recall", "suspect_share")
    )
    counts = dict.fromkeys(("pixels", "regions", "errors", "error_regions", "confident_errors"), 0)
    write_json(
        round_.model_json,
        {
            "geohsal": "0.0.9",
            "model_hash": HASH,
            "config": {"plar": {"rule": "robust", "neighbours": 16}},
            "thresholds": {
                "gate": [none if number == 1 else limit for number in range(count)],
                "margin": [limit] * count,
                "confidence": [limit] * count,
                "abstain": [
                    {"on": number in abstaining, "source": "no evidence", "reason": "0 flips"}
                    for number in range(count)
                ],
                "suspect": limit | {"value": 0.5},
                "temperature": limit,
                "error_source": "emd",
                "error_reason": "AUROC 0.8",
                "calibration": {"x": [0, 1], "y": [0, 1], "source": "identity", "reason": "-"},
                "health": health | counts,
            },
        },
    )
    return round_


def query_round(made: Made, index: int = 0, *, asked: Sequence[str] | None = None) -> Round:
    """Rasters, regions and record of a query, in all scenes or only in `asked`."""
    round_ = made.run.round(index)
    regions = [
        region
        for scene in made.scenes.values()
        if asked is None or scene.scene_id in asked
        for region in regions_of(scene)
    ]
    for number, scene in enumerate(made.scenes.values()):
        with open_maps(round_, scene, made.classes) as target:
            target.write(scene.extent, scene_maps(len(made.classes), number))
        write_cog(
            round_.raster(scene.scene_id, "view"), view(number), scene=scene, nodata=0,
            band_names=("red", "green", "blue"), overview_resampling="average",
        )  # fmt: skip
    write_regions(round_.regions, regions, made.scenes)
    pixels = sum(region.pixels for region in regions)
    local = any(scene.local for scene in made.scenes.values())
    summary = {
        "budget": f"{len(regions)}regions", "regions": len(regions), "audit_regions": 2,
        "pixels": pixels, "area_ha": None if local else pixels / 100, "minutes": 3.0,
        "states": {"TRUSTED": 700, "CONFIRMED": 50, "CORRECTED": 50, "AMBIGUOUS": 150, "NOVEL": 50},
        "files": [round_.queries().name],
    }  # fmt: skip
    write_json(round_.query_json, {"format_version": 1, "summary": summary, "request": HASH})
    return round_


def ingest_round(made: Made, index: int = 0, *, stamped: int = 2) -> Round:
    """Answers of a round in the ledger; those up to number `stamped` carry a time, 30 s apart."""
    round_ = made.run.round(index)
    scene = next(iter(made.scenes.values()))
    entries = [
        LedgerEntry(
            event="ingest", round=index, time="2026-03-04T05:06:07Z", scene_id=scene.scene_id,
            region_id=region.region_id, region_number=1,
            cell=(int(region.cell.row_off), int(region.cell.col_off), CELL, CELL),
            pixels=region.pixels, labelled_pixels=region.pixels, area_m2=region.area_m2,
            seconds=60.0, status="done", classes_rle="255*256", audit=region.audit, answers=2,
            seen=(("ann", 1_700_000_000_000 + 30_000 * number),) if number <= stamped else (),
        )
        for number, region in enumerate(regions_of(scene))
    ]  # fmt: skip
    append(made.run.ledger, entries)
    write_json(round_.ingest_json, {"format_version": 1, "time": "2026-03-04T05:06:07Z"})
    return round_


def evaluate_round(made: Made, index: int = 0, *, model_hash: str = HASH) -> Round:
    """Class n is right in 100 + n pixels and once taken for the next; the last class is absent."""
    round_ = made.run.round(index)
    count = len(made.classes)
    matrix = np.diag([*range(100, 99 + count), 0]) + np.diag([1] * (count - 1), k=1)
    figures = {"iou": 0.9, "f1": 0.95, "users_accuracy": 0.92, "producers_accuracy": 0.97}
    per_class = {info.name: figures | {"pixels": 101} for info in made.classes[:-1]}
    per_class[made.classes[-1].name] = dict.fromkeys(figures) | {"pixels": 0}  # type: ignore[assignment]
    write_json(
        round_.evaluation,
        {
            "format_version": 1, "round": index, "oa": 0.8 + index / 10, "miou": 0.6 + index / 10,
            "macro_f1": 0.7, "kappa": 0.7, "pixels": int(matrix.sum()), "per_class": per_class,
            "reference": {"north": "truth"}, "absent": [made.classes[-1].name],
            "confusion": matrix.tolist(), "model_hash": model_hash,
        },
    )  # fmt: skip
    return round_


def diagnose_round(made: Made, index: int = 0) -> Round:
    """Diagnostics by answers: two bins, one of which states too much."""
    round_ = made.run.round(index)
    bins = [
        {"low": 0.0, "high": 0.1, "pixels": 1200, "stated": 0.05, "found": 0.04},
        {"low": 0.6, "high": 0.7, "pixels": 300, "stated": 0.65, "found": 0.3},
    ]
    quality = {
        "pixels": 1500, "errors": 138, "auroc": 0.81, "aupr": 0.42, "ece": 0.078,
        "reliability": bins,
    }  # fmt: skip
    unknown = {"pixels": 0, "errors": 0, "auroc": None, "aupr": None, "ece": None}
    judged = {"error_mask": quality, "confident": unknown | {"reliability": []}}
    record = {
        "format_version": 1, "reference": "answers", "judged": judged,
        "abstaining": {made.name(2): "no evidence: 0 flips"}, "changed_share": 0.1,
    }  # fmt: skip
    write_json(round_.dir / "diagnostics.json", record)
    return round_


def make_full_run(folder: Path, **settings: Any) -> Made:
    """A run with an ingested round and a queried one after it, and every record there can be."""
    made = make_run(folder, **settings)
    for index in (0, 1):
        train_round(made, index)
        query_round(made, index)
        evaluate_round(made, index)
    ingest_round(made, 0)
    diagnose_round(made, 0)
    return made
