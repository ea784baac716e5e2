"""Where the cluster jobs of a run stand, as the queue tells it."""

from collections.abc import Iterator
from dataclasses import dataclass

from geohsal.workflows.submit_record import JobsRecord, JobState, job_states_if_any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsStatus:
    """The chain that was submitted last; `unknown` says why the queue could not be asked, or ""."""

    jobs: tuple[JobState, ...]
    unknown: str = ""


def jobs_status(record: JobsRecord) -> JobsStatus:
    """Ask the queue, once, for the jobs of a chain; never fails because of the queue."""
    states, unknown = job_states_if_any(record.jobs)
    return JobsStatus(jobs=tuple(states), unknown=unknown)


def jobs_lines(status: JobsStatus) -> Iterator[str]:
    """A chain as lines for people."""
    if status.unknown:
        named = ", ".join(f"{job.name} {job.job_id}" for job in status.jobs)
        yield f"jobs: {named}; {status.unknown}"
        return
    for job in status.jobs:
        yield f"job {job.name} {job.job_id}: {_state(job)}"


def _state(job: JobState) -> str:
    if job.queue is None:
        return "no longer in the queue"
    states = ", ".join(
        f"{count} {state.lower()}" if job.tasks > 1 else state.lower()
        for state, count in sorted(job.queue.tasks.items())
    )
    reasons = f" ({', '.join(job.queue.reasons)})" if job.queue.reasons else ""
    return states + reasons
