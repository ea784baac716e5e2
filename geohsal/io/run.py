"""The run folder: names of its files, and the step at which a run stands."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geohsal.errors import RunError

Step = Literal["tiled", "trained", "queried", "ingested"]
RasterKind = Literal["class", "confidence", "error", "state", "view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One turn of train, query, review, ingest; names files, never opens them."""

    index: int
    run_dir: Path

    @property
    def dir(self) -> Path:
        """Folder of the round: it can be mailed whole."""
        return self.run_dir / f"round_{self.index:03d}"

    @property
    def model_dir(self) -> Path:
        """model.safetensors, statistics and model.json."""
        return self.dir / "model"

    @property
    def model_json(self) -> Path:
        """Exists once the round is trained (written last)."""
        return self.model_dir / "model.json"

    @property
    def checkpoint(self) -> Path:
        """State of an unfinished training."""
        return self.dir / "training.ckpt"

    @property
    def metrics(self) -> Path:
        """Losses, thresholds with their sources, diagnostics, guards."""
        return self.dir / "metrics.json"

    @property
    def log(self) -> Path:
        """JSON lines of the training."""
        return self.dir / "log.jsonl"

    @property
    def query_json(self) -> Path:
        """Request and summary of the query; exists once the round is queried (written last)."""
        return self.dir / "query.json"

    @property
    def regions(self) -> Path:
        """GeoParquet of the queried regions: the run's own record, beside the review file."""
        return self.dir / "regions.parquet"

    @property
    def ingest_json(self) -> Path:
        """What an ingest took; exists once the round is ingested (written last)."""
        return self.dir / "ingest.json"

    @property
    def evaluation(self) -> Path:
        """Accuracy on the test split."""
        return self.dir / "evaluation.json"

    def queries(self, scene_id: str | None = None, package: int | None = None) -> Path:
        """The review file of the round; one per scene where scenes have no position on Earth.

        `package` counts from 1 where the regions are shared out among several people.
        """
        suffix = f"_{scene_id}" if scene_id else ""
        suffix += f"_p{package}" if package else ""
        return self.dir / f"queries_r{self.index:03d}{suffix}.gpkg"

    @property
    def conflicts(self) -> Path:
        """Where reviewers of the round differ: GeoPackage, to be settled."""
        return self.dir / f"conflicts_r{self.index:03d}.gpkg"

    @property
    def rasters(self) -> Path:
        """Folder of the round's rasters."""
        return self.dir / "rasters"

    def raster(self, scene_id: str, kind: RasterKind) -> Path:
        """One raster of the round."""
        return self.rasters / f"{scene_id}_{kind}.tif"

    @property
    def step(self) -> Step:
        """The last finished step of this round."""
        if self.ingest_json.exists():
            return "ingested"
        if self.query_json.exists():
            return "queried"
        return "trained" if self.model_json.exists() else "tiled"

    def next(self) -> "Round":
        """The round after this one."""
        return Round(index=self.index + 1, run_dir=self.run_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder; `open_run` checks that it is one."""

    path: Path

    @property
    def manifest(self) -> Path:
        """Resolved copy of the manifest (absolute paths)."""
        return self.path / "manifest.yaml"

    @property
    def config(self) -> Path:
        """Resolved copy of the settings, with versions."""
        return self.path / "config.yaml"

    @property
    def tiles(self) -> Path:
        """Tile index (GeoParquet); exists once the run is tiled (written last)."""
        return self.path / "tiles.parquet"

    @property
    def summary(self) -> Path:
        """tile.json: band statistics, pixels per split and class, fingerprints, warnings."""
        return self.path / "tile.json"

    @property
    def labels_dir(self) -> Path:
        """Folder of the labels that training reads."""
        return self.path / "labels"

    def labels(self, scene_id: str) -> Path:
        """GeoTIFF int32: bands class (255 unlabelled), region number (0 none), round."""
        return self.labels_dir / f"{scene_id}.tif"

    def base_labels(self, scene_id: str) -> Path:
        """The same raster with the manifest's labels only: what the ledger is replayed on."""
        return self.labels_dir / "manifest" / f"{scene_id}.tif"

    @property
    def answers(self) -> Path:
        """GeoPackage with the geometry of all answers taken in."""
        return self.labels_dir / "labels.gpkg"

    @property
    def ledger(self) -> Path:
        """Append-only record of what was spent."""
        return self.path / "ledger.jsonl"

    @property
    def slurm(self) -> Path:
        """Folder of the texts of cluster jobs; their logs are in `logs` below it."""
        return self.path / "slurm"

    @property
    def jobs(self) -> Path:
        """jobs.json: the chain of cluster jobs that was submitted last."""
        return self.path / "jobs.json"

    def round(self, index: int) -> Round:
        """A round by number."""
        return Round(index=index, run_dir=self.path)

    @property
    def current(self) -> Round:
        """The open round: the first that is not ingested."""
        round_ = self.round(0)
        while round_.step == "ingested":
            round_ = round_.next()
        return round_

    def last_trained(self) -> Round | None:
        """The newest round with a finished model, or None."""
        round_ = self.current
        while round_.index >= 0:
            if round_.model_json.exists():
                return round_
            if round_.index == 0:
                return None
            round_ = self.round(round_.index - 1)
        return None


def open_run(path: Path) -> Run:
    """The run at `path`.

    Raises:
        RunError: there is no tiled run.
    """
    run = Run(path=path)
    if not run.tiles.is_file():
        found = "no such folder" if not path.exists() else "no tiles.parquet in it"
        raise RunError(
            f"{path}: not a run ({found}); make one with: geohsal tile MANIFEST -o "
            f"{shlex.quote(str(path))}"
        )
    return run
