"""Submitted texts under a real Slurm: chains, restarts, signals, cancelling. A stub works."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster.jobs import Slurm, Stub

from geohsal.errors import RequestError
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.slurm import QueueState
from geohsal.workflows.status import status, status_lines
from geohsal.workflows.submit import SubmitSummary, cancel, submit

pytestmark = pytest.mark.slurm

MakeStub = Callable[[Path, str], Stub]
CLUSTER = """
cluster:
  sbatch: {comment: 'says "hello # you"'}
  max_restarts: 2
  setup: ["export PATH=%s:$PATH"]
stages:
  tile: {array: 2, cpus: 2}
  query: {array: 3}
  train: {nodes: 2, cpus_per_task: 2}
"""
BEHAVIOURS = {
    "done": "",
    "preempted": '[ "$1" != train ] || [ "$restarts" -ge 1 ] || exit 85',
    "killed": '[ "$1" != train ] || [ "$restarts" -ge 2 ] || kill -9 $$',
    "never": '[ "$1" != train ] || exit 75',
    "request": '[ "$1" != train ] || exit 2',
    "data": '[ "$1" != train ] || exit 3',
    "one": """[ "$1" = train ] || exit 0
    [ "$SLURM_PROCID" = 0 ] || sleep 60
    echo 3 >"$GEOHSAL_FINAL_CODE_FILE"; exit 3""",
    "partial": '[ "$1" != train ] || exit 4',
    "told": """[ "$1" = train ] || exit 0
    trap 'echo told >>signals; exit 85' USR2
    touch ready-$restarts
    [ "$restarts" -ge 1 ] || { for i in $(seq 300); do sleep 0.1; done; exit 3; }""",
    "cancelled": '[ "$1" != train ] || { touch ready-0; sleep 600; }',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A chain that has ended: what was submitted, called, and how each job ended."""

    run: Path
    stub: Stub
    summary: SubmitSummary
    states: dict[str, QueueState]

    def state(self, name: str) -> dict[str, int]:
        """Tasks of a job by state."""
        names = [job.name for job in self.summary.jobs]
        return self.states[self.summary.job_ids[names.index(name)]].tasks

    def calls(self, stage: str) -> list[str]:
        """Calls of a stage."""
        return [call for call in self.stub.calls() if call.startswith(f"{stage} ")]


@pytest.fixture(scope="module")
def outcomes(
    slurm: Slurm, make_stub: MakeStub, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """Chains of all behaviours, submitted at once and waited for together."""
    folder = tmp_path_factory.mktemp("a place")
    manifest = write_landscape(folder / "scenes", shape=(96, 96))
    submitted = {}
    for name, behaviour in BEHAVIOURS.items():
        stub = make_stub(folder / f"stub-{name}", behaviour)
        cluster = folder / f"{name}.yaml"
        cluster.write_text(CLUSTER % str(stub.folder).replace(" ", "\\\\ "), "utf-8")
        run = folder / f"50% of {name}"
        stages = ["tile", "train", "query", "select"] if name == "done" else ["tile", "train"]
        summary = submit(run, stages, cluster=cluster, manifest=manifest, budget=None)
        submitted[name] = (run, stub, summary)
    told, cancelled = submitted["told"], submitted["cancelled"]
    slurm_said(slurm, told, "--batch", "--signal=USR2")
    slurm_ready(slurm, cancelled)
    with pytest.raises(RequestError, match=r"still in the queue \(train [0-9]+\); wait for them"):
        submit(cancelled[0], ["tile"], manifest=manifest)
    assert list(cancel(cancelled[0]).cancelled) == ["train"]
    ids = [job_id for _, _, summary in submitted.values() for job_id in summary.job_ids]
    states = slurm.wait(ids)
    return {
        name: Outcome(run=run, stub=stub, summary=summary, states=states)
        for name, (run, stub, summary) in submitted.items()
    }


def slurm_ready(slurm: Slurm, chain: tuple[Path, Stub, SubmitSummary]) -> str:
    """Wait until the training of a chain works; gives back its job's id."""
    _, stub, summary = chain
    slurm.until(summary.job_ids[-1:], lambda _: (stub.folder / "ready-0").exists())
    return summary.job_ids[-1]


def slurm_said(slurm: Slurm, chain: tuple[Path, Stub, SubmitSummary], *options: str) -> None:
    """Send a signal as Slurm does before the time limit: to the batch shell alone."""
    subprocess.run(["scancel", *options, slurm_ready(slurm, chain)], check=True)


def test_a_chain_runs_in_order_with_every_share(outcomes: dict[str, Outcome]) -> None:
    done = outcomes["done"]
    assert [job.name for job in done.summary.jobs] == [
        *("tile", "tile-merge", "train", "query", "select")
    ]
    assert done.state("tile") == {"COMPLETED": 2}
    assert done.state("query") == {"COMPLETED": 3}
    words = [call.split() for call in done.stub.calls()]
    assert [call[0] for call in words] == [
        *("tile",) * 3,
        *("train",) * 2,
        *("query",) * 3,
        "select",
    ]
    tiles = [call[call.index("--shard") + 1] for call in words[:2]]
    assert sorted(tiles) == ["0/2", "1/2"]
    assert "--shard" not in words[2]
    assert sorted(call[call.index("--shard") + 1] for call in words[5:8]) == ["0/3", "1/3", "2/3"]
    assert done.calls("select") == [f"select {done.run} --budget 200regions restarts=0 threads=1"]
    assert all(call.endswith("threads=2") for call in done.calls("tile"))


def test_logs_and_status_say_what_happened(outcomes: dict[str, Outcome]) -> None:
    done, never = outcomes["done"], outcomes["never"]
    names = {path.name for path in (done.run / "slurm" / "logs").iterdir()}
    tile, merge = done.summary.job_ids[:2]
    assert {f"tile-{tile}_0.log", f"tile-{tile}_1.log", f"tile-merge-{merge}.log"} <= names
    lines = status_lines(status(done.run))
    assert f"job tile {tile}: 2 completed" in lines
    assert f"job tile-merge {merge}: completed" in lines
    log = never.run / "slurm" / "logs" / f"train-{never.summary.job_ids[-1]}.log"
    text = log.read_text("utf-8")
    # srun says what each task left with, and leaves itself with the highest: that is 143 where it
    # ended the other task, at the first one's 75, before that had left by itself
    assert len(re.findall(r"task.*: Exited with exit code 75\n", text)) >= 3
    assert re.search(r"geohsal: exit code (75|143) after 0 of 2 restarts; requeued\n", text)
    assert re.search(r"geohsal: exit code (75|143) after 2 of 2 restarts; given up\n", text)


@pytest.mark.parametrize(("name", "starts"), [("preempted", 2), ("killed", 3)])
def test_what_another_start_may_mend_is_requeued(
    outcomes: dict[str, Outcome], name: str, starts: int
) -> None:
    outcome = outcomes[name]
    assert outcome.state("train") == {"COMPLETED": 1}
    restarts = {call.split()[-2] for call in outcome.calls("train")}
    assert restarts == {f"restarts={number}" for number in range(starts)}


def test_restarts_are_bounded(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["never"].state("train") == {"FAILED": 1}
    assert any("restarts=2" in call for call in outcomes["never"].calls("train"))
    assert not any("restarts=3" in call for call in outcomes["never"].calls("train"))


@pytest.mark.parametrize("name", ["request", "data", "one", "partial"])
def test_a_wrong_request_or_wrong_data_is_not_requeued(
    outcomes: dict[str, Outcome], name: str
) -> None:
    assert outcomes[name].state("train") == {"FAILED": 1}
    assert not any("restarts=1" in call for call in outcomes[name].calls("train"))


def test_the_tasks_are_told_that_time_is_up_and_requeued(outcomes: dict[str, Outcome]) -> None:
    told = outcomes["told"]
    assert (told.stub.folder / "signals").read_text("utf-8").split()[0] == "told"
    assert told.state("train") == {"COMPLETED": 1}
    assert any("restarts=1" in call for call in told.calls("train"))


def test_a_cancelled_job_stays_cancelled(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["cancelled"].state("train") == {"CANCELLED": 1}
    assert not any("restarts=1" in call for call in outcomes["cancelled"].calls("train"))


def test_followers_of_a_failed_job_are_cancelled(
    slurm: Slurm, make_stub: MakeStub, tmp_path: Path
) -> None:
    stub = make_stub(tmp_path / "stub", '[ "$1" != tile ] || exit 3')
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER % stub.folder, "utf-8")
    manifest = write_landscape(tmp_path, shape=(96, 96))
    summary = submit(tmp_path / "run", ["tile", "train"], cluster=cluster, manifest=manifest)
    states = slurm.wait(summary.job_ids)
    ended = [states[job_id].tasks for job_id in summary.job_ids]
    assert ended == [{"FAILED": 2}, {"CANCELLED": 1}, {"CANCELLED": 1}]
    again = submit(tmp_path / "run", ["tile"], cluster=cluster, manifest=manifest)
    slurm.wait(again.job_ids)
    assert len(stub.calls()) == 4


def test_who_does_not_hear_is_killed_in_time_and_requeued(
    slurm: Slurm, make_stub: MakeStub, tmp_path: Path
) -> None:
    behaviour = """trap '' USR2
    touch ready-$restarts; [ "$restarts" -ge 1 ] || sleep 600"""
    stub = make_stub(tmp_path / "stub", behaviour)
    job_id = submit_changed(tmp_path, stub, change=("sleep 90 &", "sleep 2 &"))
    slurm.until([job_id], lambda _: (stub.folder / "ready-0").exists())
    subprocess.run(["scancel", "--batch", "--signal=USR2", job_id], check=True)
    assert slurm.wait([job_id], seconds=60)[job_id].tasks == {"COMPLETED": 1}
    (log,) = (tmp_path / "run" / "slurm" / "logs").iterdir()
    assert "geohsal: exit code 137 after 0 of 2 restarts; requeued" in log.read_text("utf-8")
    assert any("restarts=1" in call for call in stub.calls())


def test_what_setup_exports_arrives_though_nothing_else_does(
    slurm: Slurm, make_stub: MakeStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = make_stub(tmp_path / "stub", 'echo "${OUTSIDE:-nothing} $INSIDE" >found')
    monkeypatch.setenv("OUTSIDE", "1")
    shared = ("comment: 'says \"hello # you\"'", "export: NONE")
    text = (CLUSTER % stub.folder).replace(*shared).replace("]\n", ', "export INSIDE=2"]\n')
    job_id = submit_changed(tmp_path, stub, text=text)
    assert slurm.wait([job_id], seconds=60)[job_id].tasks == {"COMPLETED": 1}
    assert (stub.folder / "found").read_text("utf-8") == "nothing 2\n"


def submit_changed(
    tmp_path: Path, stub: Stub, *, text: str = "", change: tuple[str, str] = ("", "")
) -> str:
    """Submit the text of a tiling by hand, as one job and with a change; its id."""
    cluster = tmp_path / "cluster.yaml"
    whole = (text or CLUSTER % stub.folder).replace("tile: {array: 2, cpus: 2}", "tile: {cpus: 1}")
    cluster.write_text(whole, "utf-8")
    manifest = write_landscape(tmp_path, shape=(96, 96))
    run = tmp_path / "run"
    (job,) = submit(run, ["tile"], cluster=cluster, manifest=manifest, dry_run=True).jobs
    (run / "slurm" / "logs").mkdir(parents=True)
    assert change[0] in job.text
    job.script.write_text(job.text.replace(*change), "utf-8")
    command = ["sbatch", "--parsable", str(job.script)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_one_killed_and_one_doubled_share_do_each_share_again(
    slurm: Slurm, make_stub: MakeStub, tmp_path: Path
) -> None:
    behaviour = (
        '[ "$1" != tile ] || touch ready-"$SLURM_ARRAY_TASK_ID"; [ "$restarts" -ge 1 ] || sleep 4'
    )
    stub = make_stub(tmp_path / "stub", f"echo $$ >pid-$SLURM_ARRAY_TASK_ID; {behaviour}")
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER % stub.folder, "utf-8")
    manifest = write_landscape(tmp_path, shape=(96, 96))
    summary = submit(tmp_path / "run", ["tile"], cluster=cluster, manifest=manifest)
    slurm.until(summary.job_ids[:1], lambda _: (stub.folder / "ready-0").exists())
    os.kill(int((stub.folder / "pid-0").read_text("utf-8")), signal.SIGKILL)
    script = str(summary.jobs[0].script)
    double = subprocess.run(
        ["sbatch", "--parsable", "--array=1", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    states = slurm.wait([*summary.job_ids, double])
    assert [states[job_id].tasks for job_id in summary.job_ids] == [
        {"COMPLETED": 2},
        {"COMPLETED": 1},
    ]
    shares = sorted(call.split("--shard ")[1] for call in stub.calls() if "--shard" in call)
    assert shares == [
        *("0/2 restarts=0 threads=2", "0/2 restarts=1 threads=2"),
        *("1/2 restarts=0 threads=2",) * 2,
    ]
