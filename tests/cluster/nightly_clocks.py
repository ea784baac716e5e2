"""A time limit that runs out and a node that is lost; see nightly.sh, which starts these tests."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster.jobs import Slurm, Stub
from cluster.one_machine_slurm import start_node

from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.submit import SubmitSummary, submit

pytestmark = pytest.mark.slurm

MakeStub = Callable[[Path, str], Stub]
CLUSTER = """
cluster:
  sbatch: {{nodelist: n2}}
  signal_lead_s: 120
  setup: ["export PATH={folder}:$PATH"]
stages:
  tile: {{time: "{time}"}}
"""


def tile_job(tmp_path: Path, stub: Stub, *, time_limit: str) -> SubmitSummary:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER.format(folder=stub.folder, time=time_limit), "utf-8")
    manifest = write_landscape(tmp_path, shape=(96, 96))
    return submit(tmp_path / "run", ["tile"], cluster=cluster, manifest=manifest)


def test_a_job_is_told_before_its_time_is_up_and_goes_on(
    slurm: Slurm, make_stub: MakeStub, tmp_path: Path
) -> None:
    behaviour = """trap 'echo saved >>signals; exit 85' USR2
    [ "$restarts" -ge 1 ] || for i in $(seq 3000); do sleep 0.1; done"""
    stub = make_stub(tmp_path / "stub", behaviour)
    summary = tile_job(tmp_path, stub, time_limit="00:03:00")
    states = slurm.wait(summary.job_ids, seconds=300)
    assert states[summary.job_ids[0]].tasks == {"COMPLETED": 1}
    assert (stub.folder / "signals").read_text("utf-8") == "saved\n"
    assert [call.split()[-2] for call in stub.calls()] == ["restarts=0", "restarts=1"]


def test_a_job_of_a_lost_node_starts_again(
    slurm: Slurm, make_stub: MakeStub, tmp_path: Path
) -> None:
    stub = make_stub(tmp_path / "stub", 'echo $$ $PPID >pids; [ "$restarts" -ge 1 ] || sleep 600')
    summary = tile_job(tmp_path, stub, time_limit="00:20:00")
    slurm.until(summary.job_ids, lambda _: (stub.folder / "pids").exists())
    daemon = int((slurm.folder / "run" / "slurmd.n2.pid").read_text("utf-8"))
    lost = [daemon, *map(int, (stub.folder / "pids").read_text("utf-8").split())]
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    time.sleep(60)  # SlurmdTimeout is 30 s
    start_node(slurm.folder, "n2")
    states = slurm.wait(summary.job_ids, seconds=240)
    assert states[summary.job_ids[0]].tasks == {"COMPLETED": 1}
    assert any("restarts=1" in call for call in stub.calls())
