"""geohsal itself under a real Slurm: the result is that of one process, whatever is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas.testing
import pyogrio
import pytest
from cluster.jobs import Slurm
from tiny_run import TINY_SETTINGS, geohsal

from geohsal.io.run import Round, Run
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.status import status, status_lines
from geohsal.workflows.submit import SubmitSummary, submit

pytestmark = pytest.mark.slurm

BUDGET = "9regions"
FLOW = ("tile", "train", "query", "select", "predict", "export")
CLUSTER = f"""
cluster:
  max_restarts: 3
  setup: ["export PATH={Path(sys.executable).parent}:$PATH"]
stages:
  tile: {{array: 2, cpus: 1}}
  train: {{nodes: 2, tasks_per_node: 1, cpus_per_task: 1}}
  query: {{array: 3, cpus: 1}}
  select: {{cpus: 1}}
  predict: {{array: 2, cpus: 1}}
  export: {{array: 2, cpus: 1}}
"""
STEPS = 36


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in two UTM zones, with settings and a cluster file beside them."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
    (folder / "cluster.yaml").write_text(CLUSTER, "utf-8")
    (folder / "one.yaml").write_text(CLUSTER.replace("nodes: 2", "nodes: 1"), "utf-8")
    return write_landscape(folder, shape=(192, 224))


def submitted(manifest: Path, run: Path, *stages: str, cluster: str, steps: int) -> SubmitSummary:
    return submit(
        run,
        stages,
        cluster=manifest.with_name(cluster),
        config=str(manifest.with_name("settings.yaml")),
        overrides=[f"train.steps={steps}"],
        manifest=manifest if "tile" in stages else None,
        budget=BUDGET if "select" in stages else None,
    )


def process(*words: str, seconds: float = 60.0) -> int:
    """Id of the Python process with all these words on its command line, once there is one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_text("utf-8").split("\0")
            except OSError:
                continue
            if "python" in line[0] and set(words) <= set(line):
                return int(folder.name)
        time.sleep(0.1)
    raise TimeoutError(f"no process {words}")


def appears(path: Path, *, seconds: float = 120.0) -> None:
    """Wait for a file."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {path}")
        time.sleep(0.2)


def logs(run: Path) -> str:
    """All logs of a run's jobs."""
    return "\n".join(
        f"{path.name}: {path.read_text('utf-8')}"
        for path in sorted((run / "slurm" / "logs").iterdir())
    )


def assert_done(slurm: Slurm, run: Path, summary: SubmitSummary) -> None:
    states = slurm.wait(summary.job_ids, seconds=400)
    ended = [set(states[job_id].tasks) for job_id in summary.job_ids]
    assert ended == [{"COMPLETED"}] * len(ended), logs(run)


def assert_same_round(one: Round, other: Round) -> None:
    """Weights, rasters and every table of the review file are the same."""
    weights = "model/model.safetensors"
    assert (one.dir / weights).read_bytes() == (other.dir / weights).read_bytes()
    rasters = sorted(path.name for path in one.rasters.iterdir())
    assert rasters == sorted(path.name for path in other.rasters.iterdir())
    for name in rasters:
        assert (one.rasters / name).read_bytes() == (other.rasters / name).read_bytes(), name
    assert_same_layers(one.queries(), other.queries())


def assert_same_layers(one: Path, other: Path) -> None:
    """Layers of two GeoPackages have the same names; those with geometry the same features."""
    layers = [(str(name), kind) for name, kind in pyogrio.list_layers(one)]
    assert layers == [(str(name), kind) for name, kind in pyogrio.list_layers(other)]
    with_geometry = [name for name, kind in layers if kind]
    assert with_geometry
    for name in with_geometry:
        tables = [geopandas.read_file(file, layer=name) for file in (one, other)]
        geopandas.testing.assert_geodataframe_equal(*tables)


def test_a_chain_with_a_killed_and_a_doubled_share_gives_the_local_result(
    slurm: Slurm, manifest: Path, tmp_path: Path
) -> None:
    run = tmp_path / "on slurm"
    summary = submitted(manifest, run, *FLOW, cluster="one.yaml", steps=12)
    settings = ("-c", manifest.with_name("settings.yaml"), "--set", "train.steps=12")
    geohsal("tile", manifest, "-o", tmp_path / "local", *settings)
    geohsal("train", tmp_path / "local")
    geohsal("query", tmp_path / "local", "--budget", BUDGET)
    maps, polygons = tmp_path / "maps", tmp_path / "polygons.gpkg"
    geohsal("predict", tmp_path / "local", "-o", maps)
    geohsal("export", tmp_path / "local", "-o", polygons)
    os.kill(process(str(run), "0/3", seconds=120), signal.SIGKILL)
    query = next(job for job in summary.jobs if job.name == "query")
    double = ["sbatch", "--parsable", "--array=1", str(query.script)]
    double_id = subprocess.run(double, capture_output=True, text=True, check=True).stdout.strip()
    assert_done(slurm, run, summary)
    assert set(slurm.wait([double_id])[double_id].tasks) == {"COMPLETED"}
    assert "geohsal: exit code 137 after 0 of 3 restarts; requeued" in logs(run)
    assert_same_round(Run(path=run).round(0), Run(path=tmp_path / "local").round(0))
    said = status_lines(status(run))
    for path in sorted(maps.iterdir()):
        assert (run / "maps" / "r000" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list((run / "maps" / "r000").iterdir())) == len(list(maps.iterdir())) > 0
    assert_same_layers(run / "polygons_r000.gpkg", polygons)
    jobs = dict(zip([job.name for job in summary.jobs], summary.job_ids, strict=True))
    assert f"job select {jobs['select']}: completed" in said
    assert f"job export {jobs['export']}: 2 completed" in said
    assert f"job export-merge {jobs['export-merge']}: completed" in said


def test_two_processes_that_were_told_or_killed_train_to_the_same_weights(
    slurm: Slurm, manifest: Path, tmp_path: Path
) -> None:
    geohsal("tile", manifest, "-o", tmp_path / "calm", "-c", manifest.with_name("settings.yaml"))
    weights = {}
    for name in ("calm", "told", "killed"):
        run = tmp_path / name
        if not run.exists():
            shutil.copytree(tmp_path / "calm", run)
    summaries = {}
    for name in ("calm", "told", "killed"):
        run = tmp_path / name
        summaries[name] = submitted(manifest, run, "train", cluster="cluster.yaml", steps=STEPS)
    appears(tmp_path / "told" / "round_000" / "training.ckpt")
    told = summaries["told"].job_ids[0]
    subprocess.run(["scancel", "--batch", "--signal=USR2", told], check=True)
    appears(tmp_path / "killed" / "round_000" / "training.ckpt")
    os.kill(process("train", str(tmp_path / "killed")), signal.SIGKILL)
    for name, summary in summaries.items():
        run = tmp_path / name
        assert_done(slurm, run, summary)
        assert ("0 of 3 restarts; requeued" in logs(run)) == (name != "calm"), logs(run)
        weights[name] = (run / "round_000" / "model" / "model.safetensors").read_bytes()
    assert weights["told"] == weights["calm"]
    assert weights["killed"] == weights["calm"]
