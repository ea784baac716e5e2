"""`geohsal submit`: stages of a run as a chain of Slurm jobs, each after the one before it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geohsal.config import PRESETS, Config, load_config
from geohsal.config.cluster import ClusterFile, load_cluster
from geohsal.errors import RequestError, RunError
from geohsal.geo.budget import parse_budget
from geohsal.io.manifest import load_manifest
from geohsal.io.run import Run
from geohsal.workflows.slurm import scancel
from geohsal.workflows.submit_chain import ChainJob, ChainRequest, check_stages, make_chain
from geohsal.workflows.submit_record import JobsRecord, job_states, read_jobs
from geohsal.workflows.submit_send import send_chain

ANY_POOL = 2**62
"""Pixels that no percentage is too small for: the pool of a run not yet tiled is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSummary:
    """A chain: its jobs in order; `job_ids` has one per job, none after a dry run.

    `outputs` are what stages write outside the round, by stage.
    """

    run: Path
    dry_run: bool
    jobs: tuple[ChainJob, ...]
    job_ids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    outputs: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`: every job with its text and the job it waits for."""
        before = [None, *(job.name for job in self.jobs)]
        ids = self.job_ids or (None,) * len(self.jobs)
        jobs = [
            {**asdict(job), "after": after, "job_id": job_id}
            for job, after, job_id in zip(self.jobs, before, ids, strict=False)
        ]
        return {
            "run": str(self.run),
            "dry_run": self.dry_run,
            "jobs": jobs,
            "notes": list(self.notes),
            "outputs": self.outputs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSummary:
    """What was cancelled: names and ids of jobs that were still in the queue."""

    run: Path
    cancelled: dict[str, str]


def submit(
    run_dir: Path,
    stages: Sequence[str],
    *,
    cluster: Path | None = None,
    config: str | None = None,
    overrides: Sequence[str] = (),
    manifest: Path | None = None,
    budget: str | None = None,
    dry_run: bool = False,
) -> SubmitSummary:
    """Render the stages as Slurm jobs and submit them; the same call again goes on.

    Args:
        run_dir: a run; it need not exist where `tile` is the first stage.
        stages: some of tile, train, query, select, predict, export, in that order.
        cluster: the cluster file; None asks for nothing beyond the site's defaults.
        config: settings file or preset, for tile and train.
        overrides: changes to the settings, `a.b=value`.
        manifest: of a run that is not tiled yet.
        budget: of select; None takes that of the cluster file, else that of the settings.
        dry_run: render, but write and submit nothing.

    Raises:
        RequestError: unknown or misplaced stages or options; or the chain that was submitted last
            is still in the queue.
        SlurmError: the queue cannot be asked.
        GeohsalError: Slurm refuses a job; those submitted before it are cancelled.
    """
    check_stages(stages)
    run = Run(path=run_dir.absolute())
    for path in (run.path, *([manifest] if manifest else [])):
        if not str(path).isprintable():
            raise RequestError(f"{path!s}: has a control character in its name; rename it")
    file = load_cluster(cluster) if cluster else ClusterFile()
    record = read_jobs(run)
    _check_manifest(run, stages, manifest, record)
    _check_order(run, stages)
    source, notes = _config_source(run, config, file, stages)
    settings = load_config(source, overrides=overrides)
    request = _request(
        run,
        stages,
        manifest=_manifest(manifest, record, stages),
        budget=_budget(budget, stages, file, settings),
        given=_words(config, overrides, stages),
        source=None if run.config.exists() else source,
    )
    jobs = make_chain(request, file)
    ids, more = ((), ()) if dry_run else send_chain(request, jobs)
    return SubmitSummary(
        run=run.path,
        dry_run=dry_run,
        jobs=tuple(jobs),
        job_ids=ids,
        notes=(*notes, *more),
        outputs=request.outputs,
    )


def cancel(run_dir: Path) -> CancelSummary:
    """Cancel the jobs of the run's last chain that are still in the queue.

    Raises:
        RunError: nothing was submitted for this run.
        SlurmError: Slurm's commands fail.
    """
    run = Run(path=run_dir.absolute())
    record = read_jobs(run)
    if record is None:
        raise RunError(f"{run_dir}: nothing was submitted (no jobs.json in it)")
    active = {job.name: job.job_id for job in job_states(record.jobs) if job.active}
    if active:
        scancel(list(active.values()))
    return CancelSummary(run=run.path, cancelled=active)


def _check_manifest(
    run: Run, stages: Sequence[str], manifest: Path | None, record: JobsRecord | None
) -> None:
    """A manifest comes with tile on a run that is not tiled, or again as it came then."""
    tiled = run.tiles.is_file()
    if manifest is not None and "tile" not in stages:
        raise RequestError("--manifest: goes with the stage tile, which is not among the stages")
    if not tiled and "tile" not in stages:
        raise RunError(
            f"{run.path}: not a run yet; put tile first: geohsal submit tile {' '.join(stages)} "
            f"{run.path} --manifest FILE"
        )
    if not tiled and manifest is None:
        raise RequestError(f"{run.path}: is not tiled yet; add --manifest FILE")
    before = record.manifest if record else None
    if tiled and before is None and "tile" in stages:
        raise RequestError(
            f"{run.path}: is tiled already; leave tile and --manifest out (scenes and labels that "
            f"were added are taken by: geohsal tile MANIFEST -o {run.path})"
        )
    if tiled and manifest is not None and str(manifest.absolute()) != before:
        raise RequestError(
            f"--manifest {manifest}: {run.path} was tiled from {before}; leave --manifest out"
        )


def _manifest(
    manifest: Path | None, record: JobsRecord | None, stages: Sequence[str]
) -> Path | None:
    """The manifest to tile, checked; as it was where none is given."""
    found = manifest or (Path(record.manifest) if record and record.manifest else None)
    if found is not None and "tile" in stages:
        load_manifest(found)
    return found.absolute() if found else None


def _check_order(run: Run, stages: Sequence[str]) -> None:
    """Every stage finds what it works on: in the run, or from a stage before it."""
    trained = run.current.step in ("trained", "queried")
    needs = {
        "query": ("train", trained),
        "select": ("query", trained and "train" not in stages),
        "predict": ("train", run.last_trained() is not None),
        "export": ("select", bool(_queried(run))),
    }
    for stage, (before, there) in needs.items():
        if stage in stages and before not in stages and not there:
            raise RunError(
                f"{run.path}: {stage} needs {before} before it in round {run.current.index}; "
                f"add {before} to the stages"
            )


def _queried(run: Run) -> list[int]:
    rounds = range(run.current.index + 1)
    return [index for index in rounds if run.round(index).query_json.exists()]


def _config_source(
    run: Run, config: str | None, file: ClusterFile, stages: Sequence[str]
) -> tuple[str, list[str]]:
    """Settings to start from; the machine that submits says nothing about those that compute."""
    if config is not None:
        return config, []
    if run.config.exists():
        return str(run.config), []
    on_gpus = any(getattr(file.stages, stage).gpus_per_node for stage in stages)
    preset = "default" if on_gpus else "cpu-small"
    why = "GPUs are asked for" if on_gpus else "no GPU is asked for"
    return preset, [f"settings: preset {preset} ({why}); choose with -c"]


def _words(config: str | None, overrides: Sequence[str], stages: Sequence[str]) -> tuple[str, ...]:
    """`-c` and `--set` as the jobs get them."""
    if (config or overrides) and not {"tile", "train"} & set(stages):
        raise RequestError("-c and --set: are for tile and train, which are not among the stages")
    return (*_config_words(config), *(word for text in overrides for word in ("--set", text)))


def _config_words(config: str | None) -> tuple[str, ...]:
    if config is None:
        return ()
    return ("-c", config if config in PRESETS else str(Path(config).absolute()))


def _budget(budget: str | None, stages: Sequence[str], file: ClusterFile, config: Config) -> str:
    if budget is None:
        return file.stages.select.budget or config.query.budget
    if "select" not in stages:
        raise RequestError("--budget: goes with the stage select, which is not among the stages")
    parse_budget(budget, pool_pixels=ANY_POOL)
    return budget


def _request(
    run: Run,
    stages: Sequence[str],
    *,
    manifest: Path | None,
    budget: str,
    given: tuple[str, ...],
    source: str | None,
) -> ChainRequest:
    """`source` is named to the tiling of a new run, whose tasks must not choose by themselves."""
    named = given if source is None or "-c" in given else (*_config_words(source), *given)
    return ChainRequest(
        run=run,
        stages=tuple(stages),
        manifest=manifest,
        budget=budget,
        tile_settings=named,
        train_settings=given,
        mapped=_mapped_round(run, stages),
        exported=_exported_round(run, stages),
    )


def _mapped_round(run: Run, stages: Sequence[str]) -> int:
    """Round of the model that is the newest when predict starts."""
    newest = None if "train" in stages else run.last_trained()
    return (newest or run.current).index


def _exported_round(run: Run, stages: Sequence[str]) -> int:
    """Round that is the newest queried one when export starts."""
    if "select" in stages:
        return run.current.index
    return max(_queried(run), default=run.current.index)
