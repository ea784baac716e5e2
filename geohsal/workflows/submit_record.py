"""jobs.json of a run: the chain of cluster jobs that was submitted last, and where it stands."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from geohsal.errors import SlurmError
from geohsal.io.atomic import read_record, write_json
from geohsal.io.run import Run
from geohsal.workflows.slurm import QueueState, squeue

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJob:
    """One job of a chain; `tasks` of its array, or 1."""

    name: str
    stage: str
    job_id: str
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsRecord:
    """A submitted chain; `comment` is what all its jobs carry in the queue.

    Of stages that write outside the round, `folders` hold the parts and `outputs` the result.
    """

    manifest: str | None
    folders: dict[str, str]
    jobs: tuple[SubmittedJob, ...]
    outputs: dict[str, str] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A submitted job with what the queue says of it; None: Slurm knows it no longer."""

    name: str
    job_id: str
    tasks: int
    queue: QueueState | None

    @property
    def active(self) -> bool:
        """Whether it is still in the queue."""
        return self.queue is not None and self.queue.active


def write_record(run: Run, record: JobsRecord) -> None:
    """Write jobs.json, whole or not at all."""
    write_json(run.jobs, {"format_version": FORMAT_VERSION, **asdict(record)})


def read_jobs(run: Run) -> JobsRecord | None:
    """The chain that was submitted last; None where none was.

    Raises:
        DataError: jobs.json is damaged.
    """
    if not run.jobs.is_file():
        return None
    found = read_record(run.jobs, "manifest", "folders", "jobs")
    return JobsRecord(
        manifest=found["manifest"],
        folders=dict(found["folders"]),
        jobs=tuple(_job(entry) for entry in found["jobs"]),
        outputs=dict(found.get("outputs", {})),
        comment=str(found.get("comment", "")),
    )


def _job(entry: dict[str, Any]) -> SubmittedJob:
    return SubmittedJob(
        name=entry["name"], stage=entry["stage"], job_id=entry["job_id"], tasks=entry["tasks"]
    )


def job_states(jobs: Sequence[SubmittedJob]) -> list[JobState]:
    """What the queue says of each job.

    Raises:
        SlurmError: the queue cannot be asked.
    """
    queue = squeue([job.job_id for job in jobs]) if jobs else {}
    return [
        JobState(name=job.name, job_id=job.job_id, tasks=job.tasks, queue=queue.get(job.job_id))
        for job in jobs
    ]


def job_states_if_any(jobs: Sequence[SubmittedJob]) -> tuple[list[JobState], str]:
    """As `job_states`; where the queue cannot be asked, all unknown and one line why."""
    try:
        return job_states(jobs), ""
    except SlurmError as error:
        states = [
            JobState(name=job.name, job_id=job.job_id, tasks=job.tasks, queue=None) for job in jobs
        ]
        return states, f"the queue cannot be asked (squeue: {error.reason})"
