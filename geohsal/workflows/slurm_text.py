"""The texts of cluster jobs: what sbatch reads, a line per thing, for people to read too."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geohsal.errors import FINAL_CODES

Option = str | int | bool

_FINISH = """\
# 0 is done; {words} say that request or data are wrong; after all else another start may do.
finish() {{
  case "$1" in 0 | {final}) exit "$1" ;; esac
  restarts="${{SLURM_RESTART_COUNT:-0}}"
  if [ "$restarts" -lt {max_restarts} ]; then
    echo "geohsal: exit code $1 after $restarts of {max_restarts} restarts; requeued" >&2
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "geohsal: exit code $1 after $restarts of {max_restarts} restarts; given up" >&2
  fi
  exit "$1"
}}
"""

_SIGNAL = """\
# Slurm tells this shell alone that time is nearly up; the tasks are told through srun. Those that
# have not ended in half the time left are killed: past the time limit nothing would requeue them.
step= told= killer=
forward() {{
  told=yes
  [ -n "$step" ] || return
  kill -USR2 "$step"
  [ -n "$killer" ] || {{
    (trap 'kill $!' TERM; sleep {patience_s} & wait $! && kill -KILL "$step") >/dev/null 2>&1 &
    killer=$!
  }}
}}
trap forward USR2
"""

_SETUP = """\
unset GEOHSAL_FINAL_CODE_FILE  # of another job, if that submitted this one
failed() { echo "geohsal: setup failed: $1" >&2; finish 75; }
"""

_FOUND = """\
command -v geohsal >/dev/null || failed "geohsal is not on PATH; put it there in setup"
"""

_WAIT = """\
step=$!
[ -z "$told" ] || forward
while :; do  # a signal ends wait before the tasks have ended
  told=
  wait "$step"; code=$?
  [ -n "$told" ] || break
done
[ -z "$killer" ] || kill "$killer" 2>/dev/null
"""

_AGREED = """\
if [ "$code" -ne 0 ] && [ -s "$GEOHSAL_FINAL_CODE_FILE" ]; then
  code=$(cat "$GEOHSAL_FINAL_CODE_FILE")
fi
rm -f "$GEOHSAL_FINAL_CODE_FILE"
"""

_MASTER = """\
# Processes meet at the first node, by its address: a node's name need not resolve.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
"""

_AGREE = """\
# A task that leaves takes the others with it, and srun leaves with the highest code: that of those
# it ended. The first whose code no other start would change says so in this file.
rm -f {logs}/{name}-"$SLURM_JOB_ID"-*.code  # of a start that was killed
export GEOHSAL_FINAL_CODE_FILE={logs}/{name}-"$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}".code
"""

_THREADS = """\
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not take it over by itself
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobText:
    """What a job's text is made of.

    Args:
        name: name of the job and of its files.
        title: what it does, for the first line.
        command: words of the command; an array's get `--shard` behind them.
        array: tasks of the array; 0: a single job.
        at_once: of them, how many may run at a time; None: all.
        options: long options of sbatch, in order; None and False leave one out.
        setup: shell lines before the work; the job ends where one fails.
        logs: folder of the logs.
        signal_lead_s: seconds before the time limit at which the tasks get USR2; after half of
            them they are killed.
        max_restarts: times that it is requeued.
        meet: several processes find each other (training).
    """

    name: str
    title: str
    command: tuple[str, ...]
    array: int
    options: Mapping[str, Option | None]
    setup: tuple[str, ...]
    logs: Path
    signal_lead_s: int
    max_restarts: int
    meet: bool = False
    at_once: int | None = None


def job_text(job: JobText) -> str:
    """The text that sbatch takes."""
    patience_s = max(job.signal_lead_s // 2, 1)
    parts = [
        "\n".join(["#!/bin/bash -l", f"# {job.title}", *_directives(job)]) + "\n",
        _FINISH.format(
            max_restarts=job.max_restarts,
            final=" | ".join(map(str, FINAL_CODES)),
            words=f"{', '.join(map(str, FINAL_CODES[:-1]))} and {FINAL_CODES[-1]}",
        ),
        _SIGNAL.format(patience_s=patience_s),
        _SETUP + "".join(_checked(line) for line in job.setup) + _FOUND,
        _THREADS,
    ]
    if job.meet:
        parts += [_MASTER, _AGREE.format(logs=shlex.quote(str(job.logs)), name=job.name)]
    # --export=ALL: else srun drops what setup exported where sbatch was told --export=NONE.
    parts.append(f"srun --export=ALL --kill-on-bad-exit=1 {_command(job)} &\n{_WAIT}")
    parts[-1] += (_AGREED if job.meet else "") + 'finish "$code"\n'
    return "\n".join(parts)


def _checked(line: str) -> str:
    """A line of setup, and the end of the job where it fails; it may end in a comment."""
    return f"{line}\n[ $? -eq 0 ] || failed {shlex.quote(line)}\n"


def _command(job: JobText) -> str:
    words = shlex.join(job.command)
    return f'{words} --shard "$SLURM_ARRAY_TASK_ID/{job.array}"' if job.array else words


def _directives(job: JobText) -> list[str]:
    number = "%A_%a" if job.array else "%j"
    log = str(job.logs).replace("%", "%%") + f"/{job.name}-{number}.log"
    options: dict[str, Option | None] = {
        "job-name": f"geohsal-{job.name}",
        "array": _array(job),
        **job.options,
        "output": log,
        "open-mode": "append",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "signal": f"B:USR2@{job.signal_lead_s}",
    }
    return [line for name, value in options.items() for line in _directive(name, value)]


def _array(job: JobText) -> str | None:
    if not job.array:
        return None
    limit = f"%{job.at_once}" if job.at_once else ""
    return f"0-{job.array - 1}{limit}"


def _directive(name: str, value: Option | None) -> Sequence[str]:
    if value is None or value is False:
        return ()
    return (f"#SBATCH --{name}" + ("" if value is True else f"={sbatch_word(str(value))}"),)


def sbatch_word(text: str) -> str:
    """A value as sbatch reads it: it knows quotes and backslashes, but no shell."""
    if text and not set(text) & set(" \t'\"\\#"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
