"""`geohsal evaluate --design stratified`: a probability sample, and what it says of a map."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geohsal.data.dataset import seed_of
from geohsal.errors import RequestError, ReviewError, RunError
from geohsal.geo.area_estimate import Estimate, SampleEstimate, allocate, estimate, sample_size
from geohsal.geo.scene import Scene
from geohsal.io.fingerprint import file_sha256
from geohsal.io.sample_file import Design, SamplePoint, read_sample, write_sample
from geohsal.workflows.class_strata import Strata, draw_pixels, measure_strata
from geohsal.workflows.context import RunContext, open_context

EXPECTED_ACCURACY = 0.8
"""Conjectured user's accuracy of every class, from which the number of points is derived."""

MINIMUM = 50
"""Points of the smallest class; Olofsson et al. (2014) advise 50 to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSummary:
    """A sample that was drawn: points by class name, mapped area by class name in `unit`."""

    out: Path
    map_of: str
    points: int
    drawn: dict[str, int]
    areas: dict[str, float]
    unit: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRow:
    """One class of an estimate; areas in hectares, or in pixels where there is no ground."""

    points: int
    users_accuracy: Estimate | None
    producers_accuracy: Estimate | None
    mapped_area: float
    area: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaEvaluation:
    """Accuracy and areas with half widths of 95 % confidence intervals.

    `unit` is ha or pixels; `confusion` (map class, reference class) in points, `proportions` in
    shares of the area; `unanswered` points say nothing and are left out.
    """

    map_of: str
    unit: str
    points: int
    unanswered: int
    overall_accuracy: Estimate
    per_class: dict[str, AreaRow]
    confusion: tuple[tuple[int, ...], ...]
    proportions: tuple[tuple[float, ...], ...]


def draw_sample(
    run_dir: Path,
    out: Path,
    *,
    maps: Path | None = None,
    points: int | None = None,
    target_error: float = 0.02,
    seed: int | None = None,
    overwrite: bool = False,
) -> SampleSummary:
    """Draw pixels of a map by chance, the same class by class, for a person to look at.

    Strata are the classes of the map. Within a class pixels are drawn with replacement in
    proportion to their ground area, so that shares of points estimate shares of area also in
    longitude and latitude. The file does not show what the map says.

    Args:
        run_dir: the run.
        out: a new .gpkg.
        maps: folder of `geohsal predict`; None: the refined map of the newest queried round.
        points: how many; None: as many as `target_error` needs, from a conjectured user's accuracy
            of 0.8. A class gets at least 50 where the number allows it.
        target_error: standard error of overall accuracy that is wanted.
        seed: of the draw; None: that of the run's settings.
        overwrite: replace `out`.

    Raises:
        RequestError: `out` is no .gpkg or exists, or a number makes no sense.
        RunError: no map is there.
        DataError: a map cannot be read or does not fit.
    """
    _check_request(out, points, target_error, overwrite=overwrite)
    context = open_context(run_dir)
    files, map_of = _maps(context, maps)
    names, scenes = context.manifest.class_names, context.scenes
    strata = measure_strata(files, scenes, num_classes=len(names))
    areas = strata.areas
    if not areas.sum():
        raise RunError(f"{run_dir}: {map_of} holds no mapped pixel")
    shares = (areas / areas.sum()).tolist()
    expected = [EXPECTED_ACCURACY] * len(names)
    total = points or sample_size(shares, expected, standard_error=target_error)
    numbers = allocate(total, shares, minimum=MINIMUM)
    used = context.config.seed if seed is None else seed
    drawn = _draw(strata, files, scenes, numbers, seed=used)
    design = Design(
        run=context.manifest.name,
        map_of=map_of,
        map_sha256=_digest(files),
        seed=used,
        unit=strata.unit,
        class_names=names,
        areas=tuple(areas.tolist()),
        strata={point.sample_id: point.map_class for point in drawn},
        draws={point.sample_id: point.draws for point in drawn},
    )
    write_sample(out, drawn, design=design, scenes=scenes, classes=context.manifest.classes)
    return SampleSummary(
        out=out,
        map_of=map_of,
        points=sum(numbers),
        drawn=dict(zip(names, numbers, strict=True)),
        areas=dict(zip(names, areas.tolist(), strict=True)),
        unit=strata.unit,
        seed=used,
    )


def _check_request(out: Path, points: int | None, target_error: float, *, overwrite: bool) -> None:
    if out.suffix != ".gpkg":
        raise RequestError(f"{out}: must end in .gpkg")
    if out.exists() and not overwrite:
        raise RequestError(f"{out}: exists, and answers in it would be lost; use --overwrite")
    if not 0 < target_error < 0.5:
        raise RequestError(f"--target-error {target_error}: must lie between 0 and 0.5")
    if points is not None and points < 2:
        raise RequestError(f"--points {points}: a sample needs two points or more")


def _maps(context: RunContext, folder: Path | None) -> tuple[dict[str, Path], str]:
    """Class maps of all scenes, and what they are called.

    Raises:
        RunError: one is missing.
    """
    if folder is None:
        rounds = range(context.run.current.index, -1, -1)
        queried = [r for r in map(context.run.round, rounds) if r.query_json.exists()]
        if not queried:
            raise RunError(
                f"{context.run.path}: no round is queried yet; run geohsal query, or geohsal "
                "predict and give its folder with --maps"
            )
        folder, map_of = queried[0].rasters, f"refined map of round {queried[0].index}"
    else:
        map_of = f"maps in {folder.name}"
    files = {scene_id: folder / f"{scene_id}_class.tif" for scene_id in context.record.scenes}
    missing = [path for path in files.values() if not path.exists()]
    if missing:
        raise RunError(
            f"{missing[0]}: no such map, nor of {len(missing) - 1} other scenes; a sample needs "
            "the maps of all scenes of the run"
        )
    return files, map_of


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for scene_id, path in files.items():
        digest.update(f"{scene_id} {file_sha256(path)}".encode())
    return digest.hexdigest()


def _draw(
    strata: Strata,
    files: Mapping[str, Path],
    scenes: Mapping[str, Scene],
    numbers: Sequence[int],
    *,
    seed: int,
) -> list[SamplePoint]:
    """Points in an order that does not give the class away, numbered in that order."""
    rng = np.random.default_rng(seed_of(seed, "sample"))
    found = []
    for class_id, number in enumerate(numbers):
        if number:
            drawn = draw_pixels(strata, files, scenes, class_id=class_id, number=number, rng=rng)
            found += [(*place, class_id, times) for place, times in sorted(drawn.items())]
    width = len(str(len(found)))
    return [
        SamplePoint(
            sample_id=f"p{number:0{width}d}",
            scene_id=found[place][0],
            row=found[place][1],
            col=found[place][2],
            map_class=found[place][3],
            draws=found[place][4],
        )
        for number, place in enumerate(rng.permutation(len(found)).tolist(), start=1)
    ]


def evaluate_sample(run_dir: Path, reference: Path) -> AreaEvaluation:
    """Accuracy and areas from a reviewed sample, after Olofsson et al. (2014).

    Args:
        run_dir: the run that the sample was drawn from.
        reference: the .gpkg that `draw_sample` wrote, with `reference_class` filled in.

    Raises:
        ReviewError: it is no such sample or belongs to another run, a row cannot be read, or a
            mapped class has fewer than two answered points.
    """
    context = open_context(run_dir)
    answers = read_sample(reference)
    design = answers.design
    if (design.run, design.class_names) != (context.manifest.name, context.manifest.class_names):
        raise ReviewError(
            f"{reference}: was drawn from run {design.run!r} with classes "
            f"{', '.join(design.class_names)}, not from {run_dir}"
        )
    size = len(design.class_names)
    counts = np.zeros((size, size), dtype=np.int64)
    for sample_id, said in answers.classes.items():
        counts[design.strata[sample_id], said] += design.draws[sample_id]
    areas = np.asarray(design.areas)
    short = np.flatnonzero((areas > 0) & (counts.sum(axis=1) < 2))
    if short.size:
        names = ", ".join(design.class_names[number] for number in short)
        raise ReviewError(
            f"{reference}: fewer than two answered points where the map says {names}; set "
            f"reference_class of more of the {len(design.strata) - len(answers.classes)} "
            "unanswered points"
        )
    return _evaluation(design, counts, estimate(counts, areas), len(answers.classes))


def _evaluation(
    design: Design, counts: np.ndarray, found: SampleEstimate, answered: int
) -> AreaEvaluation:
    ground = design.unit == "m2"
    total = sum(design.areas) / (10_000 if ground else 1)
    rows = {
        name: AreaRow(
            points=int(counts[number].sum()),
            users_accuracy=one.users_accuracy,
            producers_accuracy=one.producers_accuracy,
            mapped_area=one.mapped_share * total,
            area=Estimate(
                value=one.area_share.value * total, half_width=one.area_share.half_width * total
            ),
        )
        for number, (name, one) in enumerate(zip(design.class_names, found.classes, strict=True))
    }
    return AreaEvaluation(
        map_of=design.map_of,
        unit="ha" if ground else "pixels",
        points=int(counts.sum()),
        unanswered=len(design.strata) - answered,
        overall_accuracy=found.overall_accuracy,
        per_class=rows,
        confusion=tuple(tuple(row) for row in counts.tolist()),
        proportions=tuple(tuple(row) for row in found.proportions.tolist()),
    )
