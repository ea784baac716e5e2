"""Handing a chain of jobs to Slurm: one submit of a run at a time, and no job that nobody knows."""

import os
import shlex
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from geohsal.errors import DataError, GeohsalError, RequestError, SlurmError
from geohsal.io.atomic import write_text
from geohsal.io.run import Run
from geohsal.workflows.slurm import sbatch, scancel
from geohsal.workflows.submit_chain import ChainJob, ChainRequest
from geohsal.workflows.submit_record import (
    JobsRecord,
    SubmittedJob,
    job_states,
    read_jobs,
    write_record,
)


def send_chain(
    request: ChainRequest, jobs: Sequence[ChainJob]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Submit the jobs of a chain in turn, unless those of the last one are still in the queue.

    Returns:
        The jobs' ids, and notes for people.

    Raises:
        RequestError: the last chain is still in the queue, or another submit is under way.
        DataError: the run cannot be written.
        SlurmError: the queue cannot be asked.
        GeohsalError: Slurm refuses a job; those submitted before it are cancelled.
    """
    with _alone(request.run) as notes:
        _refuse_queued(request.run, read_jobs(request.run))
        return _submit_all(request, jobs), notes


@contextmanager
def _alone(run: Run) -> Iterator[tuple[str, ...]]:
    """Hold the run's lock, which goes with the process; a note says where there are no locks."""
    import fcntl  # not on Windows, where texts can still be looked at

    path = run.slurm / ".lock"
    notes: tuple[str, ...] = ()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RequestError(
            f"{run.path}: another submit of this run is under way; wait until it has ended"
        ) from None
    except OSError as error:
        notes = (
            f"{path}: cannot be locked here ({error.strerror or error}); "
            "submit a run only once at a time",
        )
    try:
        yield notes
    finally:
        os.close(handle)


def _refuse_queued(run: Run, record: JobsRecord | None) -> None:
    queued = [job for job in job_states(record.jobs) if job.active] if record else []
    if queued:
        names = ", ".join(f"{job.name} {job.job_id}" for job in queued)
        raise RequestError(
            f"{run.path}: jobs of its last chain are still in the queue ({names}); wait for them, "
            f"or cancel them: geohsal submit --cancel {run.path}"
        )


def _submit_all(request: ChainRequest, jobs: Sequence[ChainJob]) -> tuple[str, ...]:
    """Write the texts, submit them in turn, and note every id as soon as it is known."""
    run = request.run
    for job in jobs:
        write_text(job.script, job.text)
    (run.slurm / "logs").mkdir(exist_ok=True)
    chain = f"geohsal-{uuid.uuid4().hex[:12]}"
    submitted: list[SubmittedJob] = []
    for job in jobs:
        after = submitted[-1].job_id if submitted else None
        comment = f"{job.comment} {chain}".lstrip()
        try:
            job_id = sbatch(job.script, after=after, comment=comment)
        except SlurmError as error:
            taken_back = _take_back(submitted)
            raise GeohsalError(f"{job.script}: not submitted{taken_back} ({error})") from None
        submitted.append(
            SubmittedJob(name=job.name, stage=job.stage, job_id=job_id, tasks=job.tasks)
        )
        write_record(run, _record(request, submitted, comment=chain))
    return tuple(job.job_id for job in submitted)


def _take_back(submitted: Sequence[SubmittedJob]) -> str:
    """Cancel jobs; what became of them, in words."""
    if not submitted:
        return ""
    job_ids = [job.job_id for job in submitted]
    try:
        scancel(job_ids)
    except SlurmError as error:
        command = shlex.join(["scancel", *job_ids])
        return f", and the jobs before it could not be cancelled ({error.reason}); do it: {command}"
    return ", and the jobs before it are cancelled"


def _record(
    request: ChainRequest, submitted: Sequence[SubmittedJob], *, comment: str
) -> JobsRecord:
    folders = {
        "predict": str(request.maps / ".predict"),
        "export": str(request.polygons.with_name(f".{request.polygons.name}.parts")),
    }
    return JobsRecord(
        manifest=str(request.manifest) if request.manifest else None,
        folders={stage: path for stage, path in folders.items() if stage in request.stages},
        jobs=tuple(submitted),
        outputs=request.outputs,
        comment=comment,
    )
