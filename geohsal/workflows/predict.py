"""`geohsal predict`: maps of classes, probabilities, error and states of any raster as COGs."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import Config
from geohsal.data.sources import SceneCrops, SceneOpener
from geohsal.errors import GeohsalError, PartialError, RequestError, RunError
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX, STATE_COLORS, PixelState
from geohsal.io.atomic import write_json
from geohsal.io.cog import open_cog
from geohsal.io.gdal import GDAL_ERRORS, quiet
from geohsal.io.manifest import SceneSource
from geohsal.training.maps import ChunkMaps, judge_window, scene_chunks
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.context import open_context, pick_device
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.scene_pass import statistics_of

logger = logging.getLogger(__name__)

KINDS = ("class", "probabilities", "confidence", "error", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSummary:
    """What a prediction wrote; `kept` were there already from the same model."""

    out: Path
    model_hash: str
    written: tuple[str, ...]
    kept: tuple[str, ...]
    class_pixels: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One raster to predict."""

    name: str
    opener: SceneOpener
    scene_id: str


def predict(
    run_dir: Path | None,
    rasters: Sequence[Path | str] = (),
    *,
    out: Path,
    model: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> PredictSummary:
    """Map scenes of a run, or any rasters with the model's bands.

    Args:
        run_dir: a run with a trained round; None where `model` is given.
        rasters: rasters outside the manifest; none: all scenes of the run.
        out: folder for <name>_{class,probabilities,confidence,error,state}.tif.
        model: a model folder, used instead of the run's newest.
        overwrite: replace maps of another model.
        device: auto, cpu, cuda or cuda:N.
        progress: told of every chunk.

    Raises:
        RequestError: nothing to predict, or `out` holds maps of another model.
        RunError: the run has no trained round.
        PartialError: some rasters failed; the others are written.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out}: is a file; give a folder with -o")
    folder, jobs = _jobs(run_dir, rasters, model)
    loaded = load_model(folder)
    jobs = jobs or [_outside(Path(raster), loaded) for raster in rasters]
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise RequestError(f"rasters of the same name would overwrite each other: {sorted(names)}")
    if not jobs:
        raise RequestError("nothing to predict: name at least one raster")
    reporter = progress or Silent()
    work = _Predict(loaded, folder, out, device=device, overwrite=overwrite)
    return work.run(jobs, reporter)


def _jobs(
    run_dir: Path | None, rasters: Sequence[Path | str], model: Path | None
) -> tuple[Path, list[_Job]]:
    """The model folder, and the run's scenes where no raster is named."""
    if run_dir is None:
        if model is None:
            raise RequestError("give a run, or --model with a model folder and rasters")
        return model, []
    context = open_context(run_dir)
    newest = context.run.last_trained()
    if model is None and newest is None:
        raise RunError(f"{run_dir}: no round is trained yet; run: geohsal train {run_dir}")
    folder = model or (newest.model_dir if newest is not None else run_dir)
    if rasters:
        return folder, []
    return folder, [
        _Job(name=scene_id, opener=context.opener, scene_id=scene_id)
        for scene_id in context.record.scenes
    ]


def _outside(raster: Path, model: Model) -> _Job:
    """A raster that no manifest lists: no labels, all of it to be mapped."""
    name = raster.stem
    source = SceneSource(
        scene_id=name,
        image=str(raster),
        bands=None,
        labels=None,
        truth=None,
        split="test",
        aoi=None,
        nodata=None,
        mask=None,
        crs=None,
        sha256=None,
    )
    opener = SceneOpener(
        sources={name: source},
        bands=model.bands,
        max_pixels=model.config.tile.max_pixels,
        labels={},
        tiles={name: []},
        buffers={name: 0},
    )
    return _Job(name=name, opener=opener, scene_id=name)


def _portable(config: Config) -> Config:
    """Settings without the choice of a kernel: all give the same, and not every machine has all."""
    return replace(config, plar=replace(config.plar, kernel="auto"))


class _Predict:
    """One prediction under way."""

    def __init__(
        self, model: Model, folder: Path, out: Path, *, device: str, overwrite: bool
    ) -> None:
        self.model = model
        self.config: Config = _portable(model.config)
        self.out = out
        self._statistics = statistics_of(model, folder)
        self._predictor = model.predictor(pick_device(device))
        self._overwrite = overwrite

    def run(self, jobs: Sequence[_Job], progress: Progress) -> PredictSummary:
        written, kept, counts = [], [], {}
        failures: dict[str, str] = {}
        for job in jobs:
            if self._is_done(job.name):
                kept.append(job.name)
                continue
            try:
                counts[job.name] = self._predict(job, progress)
                written.append(job.name)
            except GeohsalError as error:
                if len(jobs) == 1:
                    raise
                failures[job.name] = str(error)
        if failures:
            write_json(self.out / "failures.json", failures)
            if not written and not kept:
                raise next(iter([GeohsalError("; ".join(failures.values()))]))
            raise PartialError(
                f"{len(failures)} of {len(jobs)} rasters failed, see {self.out / 'failures.json'}",
                failures=failures,
            )
        return PredictSummary(
            out=self.out,
            model_hash=self.model.model_hash,
            written=tuple(written),
            kept=tuple(kept),
            class_pixels=counts,
        )

    def _path(self, name: str, kind: str) -> Path:
        return self.out / f"{name}_{kind}.tif"

    def _is_done(self, name: str) -> bool:
        """Whether all maps of this model are there.

        Raises:
            RequestError: they are there from another model.
        """
        paths = [self._path(name, kind) for kind in KINDS]
        if not all(path.exists() for path in paths):
            return False
        try:
            with quiet(), rasterio.open(paths[0]) as source:
                found = source.tags().get("GEOHSAL_MODEL")
        except GDAL_ERRORS:
            found = None
        if found == self.model.model_hash:
            return True
        if not self._overwrite:
            raise RequestError(
                f"{paths[0]}: is a map of another model; use --overwrite or another folder"
            )
        return False

    def _predict(self, job: _Job, progress: Progress) -> dict[str, int]:
        scene = job.opener(job.scene_id)
        try:
            windows = scene_chunks(self._predictor, scene.scene.height, scene.scene.width)
            progress.start(f"predict {job.name}", len(windows))
            counts = self._write(job.name, scene, windows, progress)
            progress.done()
        finally:
            scene.close()
        names = [c.name for c in self.model.classes]
        return {name: int(count) for name, count in zip(names, counts, strict=True)}

    def _write(
        self, name: str, scene: SceneCrops, windows: Sequence[Window], progress: Progress
    ) -> NDArray[np.int64]:
        counts = np.zeros(len(self.model.classes), dtype=np.int64)
        with ExitStack() as stack:
            # the class map is renamed into place last: with it, the raster is done
            targets = {
                kind: stack.enter_context(self._open(name, kind, scene.scene)) for kind in KINDS
            }
            for window in windows:
                maps, output, inner = judge_window(
                    self._predictor, scene, window, state=self._statistics, config=self.config
                )
                valid = maps.state != PixelState.NODATA
                probabilities = output.probabilities[(slice(None), *inner)].cpu().numpy()
                self._put(targets, window, maps, probabilities, valid)
                inside = maps.teacher[valid]
                counts += np.bincount(inside, minlength=len(counts))
                progress.advance()
        return counts

    def _open(self, name: str, kind: str, scene: Scene) -> Any:
        classes = self.model.classes
        options: dict[str, Any] = {
            "class": {
                "dtype": np.uint8,
                "nodata": IGNORE_INDEX,
                "band_names": ("class",),
                "colors": {c.class_id: c.color for c in classes},
                "categories": {c.class_id: c.name for c in classes},
            },
            "state": {
                "dtype": np.uint8,
                "nodata": int(PixelState.NODATA),
                "band_names": ("state",),
                "colors": {int(code): color for code, color in STATE_COLORS.items()},
                "categories": {int(code): code.name for code in PixelState},
            },
            "probabilities": _quantity([c.name for c in classes]),
            "confidence": _quantity(["confidence"]),
            "error": _quantity(["error"]),
        }[kind]
        return open_cog(
            self._path(name, kind),
            scene=scene,
            tags={"GEOHSAL_MODEL": self.model.model_hash},
            **options,
        )

    @staticmethod
    def _put(
        targets: dict[str, Any],
        window: Window,
        maps: ChunkMaps,
        probabilities: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> None:
        nan = np.float32(np.nan)
        targets["class"].write(maps.teacher, 1, window=window)
        targets["state"].write(maps.state, 1, window=window)
        targets["probabilities"].write(np.where(valid, probabilities, nan), window=window)
        targets["confidence"].write(np.where(valid, maps.confidence, nan), 1, window=window)
        targets["error"].write(np.where(valid, maps.error, nan), 1, window=window)


def _quantity(names: Sequence[str]) -> dict[str, Any]:
    return {
        "dtype": np.float32,
        "nodata": float("nan"),
        "band_names": tuple(names),
        "overview_resampling": "average",
    }
