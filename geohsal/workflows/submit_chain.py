"""Which jobs a chain of stages is made of, and what each asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from geohsal import __version__
from geohsal.config.cluster import ArrayStage, ClusterFile, JobConfig, SelectStage
from geohsal.errors import RequestError
from geohsal.io.run import Run
from geohsal.workflows.slurm_text import JobText, Option, job_text

STAGES = ("tile", "train", "query", "select", "predict", "export")
"""In the order of the flow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRequest:
    """What is to be done with a run; settings are what `-c` and `--set` take.

    `mapped` and `exported` are the rounds whose model predict uses and whose map export cuts.
    """

    run: Run
    stages: tuple[str, ...]
    manifest: Path | None
    budget: str
    tile_settings: tuple[str, ...]
    train_settings: tuple[str, ...]
    mapped: int = 0
    exported: int = 0

    @property
    def maps(self) -> Path:
        """Folder that predict writes: one per round, for a folder holds maps of one model."""
        return self.run.path / "maps" / f"r{self.mapped:03d}"

    @property
    def polygons(self) -> Path:
        """File that export writes: one per round."""
        return self.run.path / f"polygons_r{self.exported:03d}.gpkg"

    @property
    def outputs(self) -> dict[str, str]:
        """What the stages write outside the round, by stage."""
        found = {"predict": str(self.maps), "export": str(self.polygons)}
        return {stage: path for stage, path in found.items() if stage in self.stages}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainJob:
    """One job of the chain: it waits for the one before it; `text` is what sbatch takes.

    `comment` is the cluster file's own, to which submitting adds the name of the chain.
    """

    name: str
    stage: str
    tasks: int
    script: Path
    text: str
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A job of a stage before it is put into words."""

    name: str
    title: str
    command: tuple[str, ...]
    array: int = 0
    at_once: int | None = None
    options: dict[str, Option | None] = field(default_factory=dict)
    meet: bool = False


def check_stages(stages: Sequence[str]) -> None:
    """Stages must be known, each once, in the order of the flow.

    Raises:
        RequestError: they are not.
    """
    for stage in stages:
        if stage not in STAGES:
            near = get_close_matches(stage, STAGES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(STAGES)}"
            raise RequestError(f"submit: no stage {stage!r}{hint}")
    ordered = [stage for stage in STAGES if stage in stages]
    if not ordered:
        raise RequestError(
            f"submit: no stage given; write some of {' '.join(STAGES)} before the run"
        )
    if list(stages) != ordered:
        raise RequestError(
            f"submit: stages {' '.join(stages)} are out of order; write: {' '.join(ordered)}"
        )


def make_chain(request: ChainRequest, cluster: ClusterFile) -> list[ChainJob]:
    """The jobs of a chain in their order, with their texts; writes nothing."""
    return [
        _job(piece, stage, request, cluster)
        for stage in request.stages
        for piece in _PIECES[stage](request, cluster)
    ]


def _job(piece: _Piece, stage: str, request: ChainRequest, cluster: ClusterFile) -> ChainJob:
    own: JobConfig = getattr(cluster.stages, stage)
    shared = cluster.cluster
    options: dict[str, Option | None] = {
        **shared.sbatch,
        **_given(time=own.time, mem=own.mem),
        **own.sbatch,
        "gpus-per-node": own.gpus_per_node,
        **piece.options,
    }
    text = job_text(
        JobText(
            name=piece.name,
            title=f"geohsal {__version__}: {piece.title}",
            command=piece.command,
            array=piece.array,
            at_once=piece.at_once,
            options=options,
            setup=shared.setup,
            logs=request.run.slurm / "logs",
            signal_lead_s=shared.signal_lead_s,
            max_restarts=shared.max_restarts,
            meet=piece.meet,
        )
    )
    return ChainJob(
        name=piece.name,
        stage=stage,
        tasks=max(piece.array, 1),
        script=request.run.slurm / f"{piece.name}.sbatch",
        text=text,
        comment=str(options.get("comment", "")),
    )


def _given(**options: str | None) -> dict[str, Option | None]:
    return {name: value for name, value in options.items() if value is not None}


def _one_task(cpus: int | None) -> dict[str, Option | None]:
    return {"nodes": 1, "ntasks": 1, "cpus-per-task": cpus}


def _shared_out(
    stage: str, command: tuple[str, ...], own: ArrayStage, *, title: str, always: bool = False
) -> list[_Piece]:
    """An array that does the shares and a job that joins them; one job where nothing is shared out.

    `always`: the command without `--shard` does more than join, so there is no second job.
    """
    options = _one_task(own.cpus)
    shares = own.array if own.array > 1 or always else 0
    array = _Piece(
        name=stage,
        title=f"{title}, {own.array} shares" if own.array > 1 else title,
        command=command,
        array=shares,
        at_once=own.at_once if shares else None,
        options=options,
    )
    if own.array == 1 or always:
        return [array]
    merge = _Piece(
        name=f"{stage}-merge",
        title=f"{title}, what is missing, and the merge",
        command=command,
        options=options,
    )
    return [array, merge]


def _workers(own: ArrayStage | SelectStage) -> tuple[str, ...]:
    """A process per core, as each computes with one thread."""
    return ("--workers", str(own.cpus)) if own.cpus else ()


def _judging(own: ArrayStage) -> tuple[str, ...]:
    """How windows are judged: by processes, or by one that has a GPU to itself."""
    return _device(own) or _workers(own)


def _device(own: JobConfig) -> tuple[str, ...]:
    """A job that asks for GPUs must not fall back to its cores where none answers."""
    return ("--device", "cuda") if own.gpus_per_node else ()


def _tile(request: ChainRequest, cluster: ClusterFile) -> list[_Piece]:
    own, run = cluster.stages.tile, request.run.path
    words = ("geohsal", "tile", str(request.manifest), "-o", str(run))
    command = (*words, *request.tile_settings, *_workers(own))
    return _shared_out("tile", command, own, title=f"tile {request.manifest}")


def _train(request: ChainRequest, cluster: ClusterFile) -> list[_Piece]:
    own = cluster.stages.train
    options: dict[str, Option | None] = {
        "nodes": own.nodes,
        "ntasks-per-node": own.tasks,
        "cpus-per-task": own.cpus_per_task,
    }
    return [
        _Piece(
            name="train",
            title=f"train {request.run.path}, {own.nodes * own.tasks} processes",
            command=(
                *("geohsal", "train", str(request.run.path)),
                *request.train_settings,
                *_device(own),
            ),
            options=options,
            meet=True,
        )
    ]


def _query(request: ChainRequest, cluster: ClusterFile) -> list[_Piece]:
    own = cluster.stages.query
    command = ("geohsal", "query", str(request.run.path), *_judging(own))
    title = f"score {request.run.path}"
    return _shared_out("query", command, own, title=title, always=True)


def _select(request: ChainRequest, cluster: ClusterFile) -> list[_Piece]:
    own, run = cluster.stages.select, str(request.run.path)
    return [
        _Piece(
            name="select",
            title=f"choose {request.budget} of {run}",
            command=("geohsal", "select", run, "--budget", request.budget, *_workers(own)),
            options=_one_task(own.cpus),
        )
    ]


def _predict(request: ChainRequest, cluster: ClusterFile) -> list[_Piece]:
    own, run = cluster.stages.predict, str(request.run.path)
    command = ("geohsal", "predict", run, "-o", str(request.maps), *_judging(own))
    return _shared_out("predict", command, own, title=f"map {run}")


def _export(request: ChainRequest, cluster: ClusterFile) -> list[_Piece]:
    run = str(request.run.path)
    own = cluster.stages.export
    command = ("geohsal", "export", run, "-o", str(request.polygons), *_workers(own))
    return _shared_out("export", command, own, title=f"polygons of {run}")


_PIECES: dict[str, Callable[[ChainRequest, ClusterFile], list[_Piece]]] = {
    "tile": _tile,
    "train": _train,
    "query": _query,
    "select": _select,
    "predict": _predict,
    "export": _export,
}
