"""Settings of cluster jobs: a file of its own, read by `geohsal submit`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from geohsal.config.fields import STRICT, BudgetText, Positive
from geohsal.config.loading import explain, parse_yaml_mapping
from geohsal.errors import ConfigError

MAX_LEAD_S = 65535
"""Slurm's own limit of the seconds in `--signal`."""

MIN_LEAD_S = 120
"""Slurm may tell a minute early or late, and what was told needs time to save."""

OURS = (
    *("array", "chdir", "cpus-per-task", "dependency", "error", "gpus-per-node", "job-name"),
    *("kill-on-invalid-dep", "mem", "no-requeue", "nodes", "ntasks", "ntasks-per-node"),
    *("open-mode", "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap"),
)
"""Options of sbatch that geohsal sets itself."""

GPU_OPTIONS = ("gpus", "gpus-per-socket", "gpus-per-task", "gres", "tres-per-task")
"""Options of sbatch that ask for GPUs past geohsal, which would then start one process."""

_OTHER_ENGINES = {
    "dask": "give the address of a running Dask scheduler to tile, query, predict or export: "
    "--scheduler ADDRESS",
    "local": "run the commands themselves, with --workers N",
}


def _engine(value: object) -> object:
    if value in _OTHER_ENGINES:
        raise ValueError(f"only slurm is submitted; for {value}, {_OTHER_ENGINES[str(value)]}")
    return value


def _quoted_time(value: object) -> object:
    """YAML reads 24:00:00 as the number 86400, which Slurm would take for minutes."""
    if not isinstance(value, str):
        raise ValueError('must be text in quotes, such as "04:00:00" or "1-12:00:00"')
    return value


def _line(text: str) -> str:
    if not text.strip() or any(ord(letter) < 32 for letter in text):
        raise ValueError("must be one line of text")
    return text


def _sbatch(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ValueError(
                f"{name!r} is no long option of sbatch; write it without dashes before"
            )
        if name in OURS:
            raise ValueError(f"{name!r} is set by geohsal; see the keys of the stages")
        if name in GPU_OPTIONS and (name.startswith("gpus") or "gpu" in str(value).lower()):
            raise ValueError(
                f"{name!r} asks for GPUs that geohsal would not use; use gpus_per_node"
            )
        if name in ("time", "time-min"):
            _quoted_time(value)
        if isinstance(value, str):
            _line(value)
    return options


def _gpus(value: int | str) -> int | str:
    if not re.fullmatch(r"([A-Za-z][\w.-]*:)?[1-9][0-9]*", str(value)):
        raise ValueError("must be a number above 0, or kind and number, such as a100:4")
    return value


OneLine = Annotated[str, AfterValidator(_line)]
TimeLimit = Annotated[str, BeforeValidator(_quoted_time), AfterValidator(_line)]
Gpus = Annotated[int | str, AfterValidator(_gpus)]
SbatchOptions = Annotated[dict[str, str | int | bool], AfterValidator(_sbatch)]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """What all jobs share."""

    engine: Annotated[Literal["slurm"], BeforeValidator(_engine)] = Field(
        default="slurm", description="what runs the jobs"
    )
    sbatch: SbatchOptions = Field(
        default_factory=dict,
        description="long options of sbatch for every job, such as partition, account, qos, time",
    )
    signal_lead_s: Annotated[int, Field(ge=MIN_LEAD_S, le=MAX_LEAD_S)] = Field(
        default=180,
        description="seconds before the time limit at which a job is told to save and requeue; "
        "Slurm may be a minute early; who has not ended after half of them is killed and requeued",
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        default=5, description="times that a job, or one share of an array, is requeued"
    )
    setup: tuple[OneLine, ...] = Field(
        default=(),
        description="shell lines before the work, such as module load or activate; the job ends "
        "where one fails",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class JobConfig:
    """What every stage may ask for; what is not given is the site's default."""

    time: TimeLimit | None = Field(default=None, description='time limit, such as "04:00:00"')
    mem: OneLine | None = Field(default=None, description="memory per node, such as 16G")
    gpus_per_node: Gpus | None = Field(
        default=None, description="GPUs of a node: a number, or kind and number, such as a100:4"
    )
    sbatch: SbatchOptions = Field(
        default_factory=dict, description="long options of sbatch, over those of the cluster"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SelectStage(JobConfig):
    """The choice under the budget: one job."""

    cpus: Positive | None = Field(default=None, description="CPU cores, each with a process")
    budget: BudgetText | None = Field(
        default=None, description="budget where the command gives none; else query.budget"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ArrayStage(JobConfig):
    """A stage that is shared out to the tasks of a job array."""

    array: Positive = Field(
        default=1, description="tasks; task i takes the chunks i, i + array, i + 2 array, ..."
    )
    at_once: Positive | None = Field(
        default=None, description="tasks that may run at the same time; default: all"
    )
    cpus: Positive | None = Field(
        default=None,
        description="CPU cores of a task, each with a process; query and predict on a GPU have one",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrainStage(JobConfig):
    """Training: one job with a process per GPU."""

    nodes: Positive = Field(default=1, description="nodes")
    tasks_per_node: Positive | None = Field(
        default=None, description="processes of a node; default: one per GPU, or one"
    )
    cpus_per_task: Positive | None = Field(default=None, description="CPU cores of a process")

    @property
    def tasks(self) -> int:
        """Processes of a node."""
        return self.tasks_per_node or int(str(self.gpus_per_node or 1).rpartition(":")[2])


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class StagesConfig:
    """What each stage asks for."""

    tile: ArrayStage = dataclasses.field(default_factory=ArrayStage)
    train: TrainStage = dataclasses.field(default_factory=TrainStage)
    query: ArrayStage = dataclasses.field(default_factory=ArrayStage)
    select: SelectStage = dataclasses.field(default_factory=SelectStage)
    predict: ArrayStage = dataclasses.field(default_factory=ArrayStage)
    export: ArrayStage = dataclasses.field(default_factory=ArrayStage)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ClusterFile:
    """A cluster file as a whole; the defaults ask for nothing beyond the site's own."""

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    stages: StagesConfig = dataclasses.field(default_factory=StagesConfig)


_ADAPTER = TypeAdapter(ClusterFile)


def load_cluster(path: Path) -> ClusterFile:
    """The cluster file at `path`.

    Raises:
        ConfigError: it is missing or not YAML, a key is unknown, a value out of range.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cluster file {path}: cannot be read ({error}); give a YAML file, or leave --cluster "
            "out to take the site's defaults"
        ) from None
    where = f"cluster file {path}"
    try:
        return _ADAPTER.validate_python(parse_yaml_mapping(text, where=where))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, _keys())}") from None


def cluster_schema() -> dict[str, Any]:
    """JSON Schema of a cluster file: every key with type, default, bounds and description."""
    return _ADAPTER.json_schema()


def _keys() -> list[str]:
    parts = (ClusterFile, ClusterConfig, StagesConfig, ArrayStage, TrainStage, SelectStage)
    return [field.name for part in parts for field in dataclasses.fields(part)]
