"""Slurm's commands: submit a text, look at the queue, cancel; nothing else asks Slurm anything."""

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geohsal.errors import SlurmError

TIMEOUT_S = 20.0
"""A controller that is restarting answers no sooner; a command then says so instead of waiting."""

SBATCH_TIMEOUT_S = 300.0
"""A busy controller may take a job minutes after it was asked: to give up early would lose it."""

FINISHED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
"""States that a job does not leave by itself; in all others it is still in the queue."""

_FORMAT = "%F|%T|%r"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What the queue says of a job: tasks by state, and why those that wait do."""

    tasks: dict[str, int]
    reasons: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether a task still waits, runs or ends."""
        return not FINISHED.issuperset(self.tasks)


def sbatch(script: Path, *, after: str | None = None, comment: str | None = None) -> str:
    """Submit a text; gives back the job's id.

    Args:
        script: the text.
        after: id of the job that must be done well before.
        comment: what the job can be found by in the queue.

    Raises:
        SlurmError: sbatch is missing, refuses or does not answer; then the job may be there.
    """
    options = [f"--dependency=afterok:{after}"] if after else []
    options += [f"--comment={comment}"] if comment else []
    command = ["sbatch", "--parsable", *options, str(script)]
    # Slurm sets it only in restarted jobs; a job submitted from one would inherit its count
    inherited = {key: value for key, value in os.environ.items() if key != "SLURM_RESTART_COUNT"}
    named = f" for comment {comment} with" if comment else ""
    advice = f"the job may be in the queue all the same; look{named}: squeue --me -o '%i %k'"
    said = _run(command, timeout_s=SBATCH_TIMEOUT_S, unanswered=advice, env=inherited)
    return said.strip().splitlines()[-1].partition(";")[0]  # id;cluster where there are several


def squeue(job_ids: Sequence[str]) -> dict[str, QueueState]:
    """States of the jobs that Slurm still knows, by id; finished ones are forgotten in minutes.

    Raises:
        SlurmError: squeue is missing, fails or does not answer.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--format={_FORMAT}"]
    try:
        said = _run([*command, f"--jobs={','.join(job_ids)}"])
    except SlurmError as error:
        if "Invalid job id" in error.reason:  # what squeue says of a single forgotten job
            return {}
        raise
    tasks: dict[str, Counter[str]] = {}
    reasons: dict[str, set[str]] = {}
    for line in said.splitlines():
        job_id, state, reason = line.strip().split("|", 2)
        tasks.setdefault(job_id, Counter())[state] += 1
        if state == "PENDING" and reason != "None":
            reasons.setdefault(job_id, set()).add(reason)
    return {
        job_id: QueueState(tasks=dict(states), reasons=tuple(sorted(reasons.get(job_id, ()))))
        for job_id, states in tasks.items()
    }


def scancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs.

    Raises:
        SlurmError: scancel is missing or fails.
    """
    _run(["scancel", *job_ids])


def _run(
    command: Sequence[str],
    *,
    timeout_s: float | None = None,
    unanswered: str = "try again",
    env: Mapping[str, str] | None = None,
) -> str:
    program, limit = command[0], TIMEOUT_S if timeout_s is None else timeout_s
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, env=env
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{program}: not found; submit on a machine with Slurm's commands (a login node), or "
            "look at the jobs with --dry-run",
            reason="not found",
        ) from None
    except OSError as error:
        raise SlurmError(f"{program}: {error}", reason=str(error)) from None
    except subprocess.TimeoutExpired:
        reason = f"no answer within {limit:.0f} s"
        raise SlurmError(f"{program}: {reason}; {unanswered}", reason=reason) from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SlurmError(f"{' '.join(command)}: {reason}", reason=reason)
    return done.stdout
