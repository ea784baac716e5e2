"""`geohsal submit` and the options around it, through the real command line."""

import json
import subprocess
from pathlib import Path

import pytest
from fake_slurm import fake_slurm
from tiny_run import geohsal

from geohsal.workflows.landscape import write_landscape


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_landscape(tmp_path_factory.mktemp("scenes"), shape=(96, 96))


def test_a_dry_run_prints_the_texts_and_writes_nothing(manifest: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    said = geohsal("submit", "tile", "train", run, "--manifest", manifest, "--dry-run").stdout
    assert said.startswith("# settings: preset cpu-small (no GPU is asked for); choose with -c\n")
    assert f"# sbatch --parsable '{run}/slurm/tile.sbatch'\n#!/bin/bash -l\n" in said
    assert f"# sbatch --parsable --dependency=afterok:<id of tile> '{run}/slurm/train" in said
    assert subprocess.run(["bash", "-n"], input=said, text=True, check=False).returncode == 0
    assert not run.exists()


def test_with_json_every_text_is_told(manifest: Path, tmp_path: Path) -> None:
    words = ("submit", "tile", tmp_path / "run", "--manifest", manifest, "--dry-run", "--json")
    told = json.loads(geohsal(*words).stdout)
    assert told["dry_run"] is True
    (job,) = told["jobs"]
    assert (job["name"], job["after"], job["job_id"]) == ("tile", None, None)
    assert job["text"].startswith("#!/bin/bash -l\n")
    assert job["script"] == str(tmp_path / "run" / "slurm" / "tile.sbatch")


def test_a_chain_is_submitted_looked_at_and_cancelled(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_slurm(tmp_path / "bin", monkeypatch)
    run = tmp_path / "run"
    said = geohsal("submit", "tile", "train", run, "--manifest", manifest).stdout
    assert said.splitlines() == [
        "settings: preset cpu-small (no GPU is asked for); choose with -c",
        "submitted: tile 101",
        "submitted: train 102",
        f"texts and logs: {run}/slurm",
        f"where it stands: geohsal status {run}",
    ]
    fake.says("squeue", "echo '101|RUNNING|None'")
    told = json.loads(geohsal("status", run, "--json").stdout)
    assert told["jobs"]["jobs"][0]["queue"] == {"tasks": {"RUNNING": 1}, "reasons": []}
    assert told["parts"] == []
    assert geohsal("submit", "--cancel", run).stdout == "cancelled: tile 101\n"
    fake.says("squeue", "exit 0")
    assert geohsal("submit", "--cancel", run).stdout == f"{run}: no job is in the queue\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("submit",), "Missing argument 'RUN'"),
        (("submit", "tile"), "no stage given"),
        (("submit", "tile", "--cancel", "RUN"), "--cancel goes with a RUN alone"),
        (("submit", "tile", "RUN", "--cluster", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
    ],
)
def test_a_wrong_request_is_one_line(argv: tuple[str, ...], message: str) -> None:
    result = geohsal(*argv, code=2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_schema_of_a_cluster_file_is_shown() -> None:
    told = json.loads(geohsal("config", "schema", "--cluster", "--json").stdout)
    assert "signal_lead_s" in told["$defs"]["ClusterConfig"]["properties"]


def test_the_doctor_looks_at_a_run(tmp_path: Path) -> None:
    said = geohsal("doctor", tmp_path, "--dir", tmp_path).stdout
    assert f"{tmp_path} may be written, not tiled yet" in said
    said = geohsal("doctor", tmp_path / "gone", "--dir", tmp_path, code=3).stdout
    assert f"{tmp_path}/gone: No such file or directory" in said
