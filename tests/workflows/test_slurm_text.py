"""Texts of jobs: what bash and sbatch read is what was meant."""

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.workflows.slurm_text import JobText, job_text, sbatch_word

JOB = JobText(
    name="query",
    title="score",
    command=("geohsal", "query", "/runs/a b/'c'"),
    array=32,
    options={"partition": "gpu", "mem": None, "exclusive": True, "contiguous": False},
    setup=("module load cuda", "source venv"),
    logs=Path("/runs/50% of a/slurm/logs"),
    signal_lead_s=240,
    max_restarts=3,
)


def test_every_directive_stands_before_the_first_command() -> None:
    lines = job_text(JOB).splitlines()
    assert lines[:2] == ["#!/bin/bash -l", "# score"]
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=geohsal-query",
        "#SBATCH --array=0-31",
        "#SBATCH --partition=gpu",
        "#SBATCH --exclusive",
        '#SBATCH --output="/runs/50%% of a/slurm/logs/query-%A_%a.log"',
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --signal=B:USR2@240",
    ]
    assert lines.index("") == 11
    some = job_text(replace(JOB, array=64, at_once=8))
    assert "#SBATCH --array=0-63%8\n" in some


def test_the_command_runs_under_srun_with_its_share() -> None:
    text = job_text(JOB)
    (line,) = [line for line in text.splitlines() if line.startswith("srun")]
    assert shlex.split(line) == [
        *("srun", "--export=ALL", "--kill-on-bad-exit=1"),
        *("geohsal", "query", "/runs/a b/'c'"),
        *("--shard", "$SLURM_ARRAY_TASK_ID/32", "&"),
    ]
    assert text.index("trap forward USR2") < text.index("source venv") < text.index(line)
    assert "MASTER_ADDR" not in text
    one = job_text(replace(JOB, array=0, meet=True))
    assert "--shard" not in one
    assert "--array" not in one
    assert 'query-%j.log"' in one
    assert "export MASTER_ADDR MASTER_PORT" in one


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A folder with stand-ins for the programs that a text calls."""

    folder: Path

    def has(self, name: str, lines: str) -> None:
        """Put a program there."""
        (self.folder / name).write_text(f"#!/bin/bash\n{lines}\n", "utf-8")
        (self.folder / name).chmod(0o755)

    def start(self, text: str, *, restarts: int = 0) -> "subprocess.Popen[str]":
        """Start a text as Slurm does."""
        environ = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "SLURM_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        return subprocess.Popen(
            ["bash", "-c", text], env=environ, stderr=subprocess.PIPE, text=True, cwd=self.folder
        )

    def ran(self, text: str, *, restarts: int = 0) -> tuple[int, str]:
        """Exit code and stderr of a text."""
        with self.start(text, restarts=restarts) as process:
            return _ended(process)

    def noted(self) -> list[str]:
        """What programs noted."""
        path = self.folder / "noted"
        return path.read_text("utf-8").splitlines() if path.exists() else []


def _ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=30)
    return process.returncode, said


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose srun does nothing."""
    made = Node(folder=tmp_path)
    made.has("scontrol", 'echo "$*" >>noted')
    made.has("srun", "echo started >>noted")
    made.has("geohsal", "exit 1")
    return made


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [
        *((code, 0, False) for code in (0, 2, 3, 4)),
        *((code, 0, True) for code in (1, 75, 85, 130, 137, 143)),
        *((85, count, count < 3) for count in (1, 2, 3, 4)),
    ],
)
def test_who_is_requeued(node: Node, code: int, restarts: int, requeued: bool) -> None:
    node.has("srun", f"exit {code}")
    ended, said = node.ran(job_text(replace(JOB, setup=())), restarts=restarts)
    assert ended == code
    assert node.noted() == (["requeue 7"] if requeued else [])
    assert ("requeued" in said) == requeued
    assert ("given up" in said) == (code == 85 and restarts >= 3)


@pytest.mark.parametrize(
    ("first", "code", "ended", "requeued"),
    [
        (3, 143, 3, False),
        (2, 2, 2, False),
        (None, 143, 143, True),
        (3, 0, 0, False),  # somebody started it again, and then it worked
    ],
)
def test_of_several_tasks_the_first_whose_code_is_final_decides(
    node: Node, first: int | None, code: int, ended: int, requeued: bool
) -> None:
    say = "" if first is None else f'echo {first} >"$GEOHSAL_FINAL_CODE_FILE"; '
    node.has("srun", f"{say}exit {code}")
    logs = node.folder / "50% of 'a run'"
    logs.mkdir()
    (logs / "train-7-0.code").write_text("4", "utf-8")  # of a start whose node was lost
    other = logs / "train-70-0.code"
    other.write_text("4", "utf-8")
    job = replace(JOB, name="train", array=0, meet=True, setup=(), logs=logs)
    found, said = node.ran(job_text(job), restarts=1)
    assert found == ended
    assert ("requeue 7" in node.noted()) == requeued == ("requeued" in said)
    assert list(logs.iterdir()) == [other]


def test_other_jobs_say_nothing_in_the_file_of_one_that_submitted_them(node: Node) -> None:
    node.has("srun", 'echo "${GEOHSAL_FINAL_CODE_FILE-none}" >>noted')
    text = "export GEOHSAL_FINAL_CODE_FILE=outer\n" + job_text(replace(JOB, setup=()))
    assert node.ran(text)[0] == 0
    assert node.noted() == ["none"]


def test_a_line_of_setup_that_fails_ends_the_job_before_it_works(node: Node) -> None:
    setup = ("true", "module load 'nothing there'  # of this site", "export WORKS=1")
    code, said = node.ran(job_text(replace(JOB, setup=setup)))
    assert (code, node.noted()) == (75, ["requeue 7"])
    assert "geohsal: setup failed: module load 'nothing there'  # of this site\n" in said
    assert "geohsal: exit code 75 after 0 of 3 restarts; requeued" in said


def test_setup_reaches_the_work_and_must_bring_geohsal(node: Node) -> None:
    node.has("srun", 'echo "$WORKS" >>noted')
    text = job_text(replace(JOB, setup=("export WORKS=1 # why", "if true; then", ":", "fi")))
    assert node.ran(text)[0] == 0
    assert node.noted() == ["1"]
    (node.folder / "geohsal").unlink()
    code, said = node.ran(text)
    assert (code, node.noted()) == (75, ["1", "requeue 7"])
    assert said.startswith("geohsal: setup failed: geohsal is not on PATH; put it there in setup\n")


def told(node: Node, text: str) -> tuple[int, str]:
    """Start a text, tell its shell once srun works that time is nearly up, and wait."""
    with node.start(text) as process:
        deadline = time.monotonic() + 20
        while "ready" not in node.noted():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR2)
        return _ended(process)


def test_who_does_not_react_in_time_is_killed_and_requeued(node: Node) -> None:
    node.has("srun", "trap 'echo told >>noted' USR2; echo ready >>noted\nwhile :; do :; done")
    code, said = told(node, job_text(replace(JOB, setup=(), signal_lead_s=2)))
    assert code == 137
    assert node.noted() == ["ready", "told", "requeue 7"]
    assert "exit code 137 after 0 of 3 restarts; requeued" in said


def test_who_reacts_in_time_is_not_waited_for_any_longer(node: Node) -> None:
    node.has("sleep", "echo $$ >sleeper; exec /bin/sleep $1")
    react = "while [ ! -s sleeper ]; do :; done; exit 85"
    node.has("srun", f"trap '{react}' USR2; echo ready >>noted\nwhile :; do :; done")
    code, _ = told(node, job_text(replace(JOB, setup=(), signal_lead_s=36_000)))
    assert (code, node.noted()) == (85, ["ready", "requeue 7"])
    assert gone(int((node.folder / "sleeper").read_text("utf-8")))


def gone(pid: int, *, seconds: float = 10.0) -> bool:
    """Whether a process ends soon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" ")))
def test_words_of_sbatch_keep_every_letter(text: str) -> None:
    assert _as_sbatch_reads(sbatch_word(text)) == text


def _as_sbatch_reads(word: str) -> str:
    """Slurm's own rule for a word of an #SBATCH line (`_get_argument` in sbatch)."""
    read, quote, escaped = "", "", False
    for letter in word:
        if escaped:
            read, escaped = read + letter, False
        elif letter == "\\":
            escaped = True
        elif quote:
            read, quote = (read, "") if letter == quote else (read + letter, quote)
        elif letter in "\"'":
            quote = letter
        elif letter in " #":
            break
        else:
            read += letter
    return read
