"""Slurm's commands: what they answer, and one line where they do not."""

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, fake_slurm

from geohsal.errors import SlurmError
from geohsal.workflows import slurm as room
from geohsal.workflows.slurm import QueueState, sbatch, scancel, squeue


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return fake_slurm(tmp_path / "bin", monkeypatch)


def test_ids_come_without_the_cluster_and_after_warnings(fake: FakeSlurm) -> None:
    fake.says("sbatch", "echo note; echo '77;north'")
    assert sbatch(Path("a b.sbatch"), after="76") == "77"
    assert fake.calls("sbatch") == ["sbatch --parsable --dependency=afterok:76 a b.sbatch"]


def test_a_job_inherits_all_but_the_restarts_of_the_job_that_submits_it(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.setenv("OWN", "4")
    fake.says("sbatch", 'echo "${SLURM_RESTART_COUNT:-none}$OWN"')
    assert sbatch(Path("a.sbatch")) == "none4"


def test_the_queue_is_counted_by_state(fake: FakeSlurm) -> None:
    lines = ["7|RUNNING|None", "7|PENDING|Resources", "7|PENDING|None", "8|COMPLETED|None"]
    fake.says("squeue", "\n".join(f"echo '{line}'" for line in lines))
    states = squeue(["7", "8", "9"])
    assert states == {
        "7": QueueState(tasks={"RUNNING": 1, "PENDING": 2}, reasons=("Resources",)),
        "8": QueueState(tasks={"COMPLETED": 1}),
    }
    assert [states[job].active for job in ("7", "8")] == [True, False]
    assert fake.calls("squeue")[0].endswith("--jobs=7,8,9")


def test_a_forgotten_job_is_not_in_the_queue(fake: FakeSlurm) -> None:
    fake.says("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert squeue(["7"]) == {}


def test_failures_are_one_line(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.says("squeue", "echo 'slurm_load_jobs error:' >&2; echo ' no controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="slurm_load_jobs error: no controller"):
        squeue(["7"])
    fake.says("scancel", "exit 5")
    with pytest.raises(SlurmError, match="scancel 7: exit code 5"):
        scancel(["7"])
    monkeypatch.setattr(room, "TIMEOUT_S", 0.2)
    fake.says("squeue", "PATH=/bin:/usr/bin; exec sleep 5")
    with pytest.raises(SlurmError, match="squeue: no answer within 0 s; try again"):
        squeue(["7"])
    fake.says("sbatch", "PATH=/bin:/usr/bin; sleep 0.5; echo 8")
    assert sbatch(Path("slow")) == "8"  # what has been asked for is waited for
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="sbatch: not found; submit on a machine with Slurm"):
        sbatch(Path("x"))
