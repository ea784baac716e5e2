"""`geohsal answer`: an oracle fills the review file from the manifest's truth."""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import LabelError, RequestError, ReviewError
from geohsal.geo.patches import slices
from geohsal.geo.scene import QueryRegion
from geohsal.io.atomic import read_record
from geohsal.io.gpkg_read import is_edited
from geohsal.io.labels import read_truth
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.review_fill import Filling, fill_review
from geohsal.io.review_origin import Asked, foreign, read_origin
from geohsal.io.review_rows import read_file
from geohsal.io.review_source import Source, gather
from geohsal.io.round_record import answers_path, read_answers, read_regions
from geohsal.io.run import Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.query.oracle import OracleNoise, answer_region

REVIEWER = "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSummary:
    """What the oracle did; `written` is False where `out` said the same already."""

    out: Path
    written: bool
    round: int
    done: int
    unsure: int
    skipped: int
    uniform: int
    accepted: int
    reclassed: int
    redrawn: int
    added: int
    deleted: int


def answer(
    run_dir: Path,
    queries: Path,
    out: Path,
    *,
    noise: float = 0.0,
    skip: float = 0.0,
    slop_px: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> AnswerSummary:
    """Fill a copy of a review file from the truth of the manifest's scenes.

    Args:
        run_dir: the run that asked.
        queries: an unedited review file of one of its rounds.
        out: the filled copy.
        noise: share of class patches that get a wrong name.
        skip: share of regions left as skipped.
        slop_px: pixels by which borders between classes are off, at most.
        seed: of the faults; a region's faults do not depend on other regions, but people who share
            a round make different ones.
        overwrite: replace an `out` that says something else.

    Raises:
        RequestError: `out` is the review file itself or exists and differs; a share is none.
        ReviewError: the file is edited, or not of this run.
        LabelError: a scene has no truth.
    """
    try:
        faults = OracleNoise(label=noise, skip=skip, slop_px=slop_px)
    except ValueError as error:
        raise RequestError(str(error)) from None
    if out.resolve() == queries.resolve():
        raise RequestError(f"{out}: is the review file itself; give another name for the answers")
    run = open_run(run_dir)
    manifest = load_manifest(run.manifest)
    (source,) = gather([queries])
    asked = _asked(run, source, manifest)
    if is_edited(queries):
        raise ReviewError(
            f"{queries}: has been edited or is open; the oracle fills untouched files"
        )
    file = read_file(source, asked)
    regions = [asked.regions[region_id] for region_id in file.regions]
    own = [] if file.package is None else [file.package]  # every package has an oracle of its own
    fillings = _fillings(asked, manifest, regions, faults, [seed, *own])
    reviewer = " ".join([REVIEWER, *map(str, own)])
    counts, written = fill_review(
        file, out, fillings, asked=asked, reviewer=reviewer, overwrite=overwrite
    )
    states = [filling.status for filling in fillings.values()]
    return AnswerSummary(
        out=out,
        written=written,
        round=asked.index,
        done=states.count("done"),
        unsure=states.count("unsure"),
        skipped=states.count("skipped"),
        **asdict(counts),
    )


def _asked(run: Run, source: Source, manifest: Manifest) -> Asked:
    origin = read_origin(source)
    round_ = run.current if origin.round is None else run.round(origin.round)
    if not round_.regions.exists():
        other = foreign(origin.run, manifest.name)
        words = other or f"is of round {round_.index}, which this run has not queried"
        raise ReviewError(f"{source.path}: {words}")
    regions = read_regions(round_.regions)
    packages = read_record(round_.query_json).get("packages") or []
    scenes = load_scenes(run)
    return Asked(
        index=round_.index,
        request=None,
        regions={region.region_id: region for region in regions},
        answers={item.answer_id: item for item in read_answers(answers_path(round_))},
        scenes={name: scenes[name] for name in sorted({item.scene_id for item in regions})},
        num_classes=manifest.num_classes,
        run=manifest.name,
        packages=tuple(frozenset(names) for names in packages),
    )


def _fillings(
    asked: Asked,
    manifest: Manifest,
    regions: list[QueryRegion],
    faults: OracleNoise,
    seed: list[int],
) -> Mapping[str, Filling]:
    fillings = {}
    for scene_id in sorted({region.scene_id for region in regions}):
        truth = _truth(asked, manifest, scene_id)
        for region in regions:
            if region.scene_id != scene_id:
                continue
            given = answer_region(
                region,
                truth[slices(region.cell)],
                num_classes=manifest.num_classes,
                noise=faults,
                rng=np.random.default_rng([*seed, zlib.crc32(region.region_id.encode())]),
            )
            fillings[region.region_id] = Filling(status=given.status, classes=given.classes)
    return fillings


def _truth(asked: Asked, manifest: Manifest, scene_id: str) -> NDArray[np.uint8]:
    source = manifest.scene(scene_id).truth
    if source is None:
        raise LabelError(
            f"{manifest.path}: scene {scene_id!r} has no truth to answer from; add `truth:` to it, "
            "or review the file in QGIS"
        )
    scene = asked.scenes[scene_id]
    where = f"scene {scene_id!r}: truth"
    return read_truth(source, scene, manifest.classes, where=where)
