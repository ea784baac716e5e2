"""Slurm itself reads the texts: it takes those it should, and refuses what no node has."""

import os
import subprocess
from pathlib import Path

import pytest
from cluster.jobs import Slurm

from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.submit import submit

pytestmark = pytest.mark.slurm

STAGES = ("tile", "train", "query", "select", "predict", "export")
CLUSTER = """
cluster:
  sbatch: {partition: main, time: "04:00:00", comment: 'a # "b" \\c', exclusive: true}
  signal_lead_s: 200
  setup: ["module load cuda"]
stages:
  tile: {array: 64, at_once: 8, cpus: 4, mem: 100M}
  train: {nodes: 2, gpus_per_node: 4, cpus_per_task: 2, time: "1-00:00:00"}
  query: {array: 32, gpus_per_node: 1, cpus: 8, mem: 100M}
  select: {cpus: 4, mem: 100M, budget: 2%}
  predict: {array: 4, gpus_per_node: "a100:3", sbatch: {exclusive: false}}
"""


def texts(tmp_path: Path, *, change: tuple[str, str] = ("", "")) -> dict[str, str]:
    """The jobs of the whole flow with every key in use, by name."""
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER.replace(*change), "utf-8")
    manifest = write_landscape(tmp_path / "a b", shape=(96, 96))
    run = tmp_path / "runs 'of' 50%"
    summary = submit(run, STAGES, cluster=cluster, manifest=manifest, dry_run=True)
    assert not run.exists()
    return {job.name: job.text for job in summary.jobs}


def asked(text: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """What sbatch says of a text."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SBATCH_")}
    return subprocess.run(
        ["sbatch", *options], input=text, capture_output=True, text=True, check=False, env=clean
    )


@pytest.mark.usefixtures("slurm")
def test_slurm_accepts_every_text(tmp_path: Path) -> None:
    jobs = texts(tmp_path)
    assert len(jobs) == 8
    for text in jobs.values():
        said = asked(text, "--test-only")
        assert said.returncode == 0, said.stderr
        assert "to start at" in said.stderr


@pytest.mark.usefixtures("slurm")
def test_slurm_refuses_more_gpus_than_a_node_has(tmp_path: Path) -> None:
    jobs = texts(tmp_path, change=("gpus_per_node: 4", "gpus_per_node: 5"))
    said = asked(jobs["train"], "--test-only")
    assert said.returncode == 1
    assert "Requested node configuration is not available" in said.stderr


@pytest.mark.usefixtures("slurm")
def test_slurm_knows_kinds_of_gpus(tmp_path: Path) -> None:
    jobs = texts(tmp_path, change=("a100:3", "h100:3"))
    assert "#SBATCH --gpus-per-node=h100:3\n" in jobs["predict"]
    said = asked(jobs["predict"], "--test-only")
    assert said.returncode == 1
    assert "Requested node configuration is not available" in said.stderr


def test_slurm_reads_what_was_meant(slurm: Slurm, tmp_path: Path) -> None:
    job_id = asked(texts(tmp_path)["train"], "--parsable", "--hold").stdout.strip()
    command = ["scontrol", "show", "job", job_id]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    subprocess.run(["scancel", job_id], check=True)
    slurm.wait([job_id])
    assert 'Comment=a # "b" \\c' in said
    assert f"StdOut={tmp_path}/runs 'of' 50%%/slurm/logs/train-{job_id}.log" in said
    for words in ("NumNodes=2-2", "CPUs/Task=2", "TimeLimit=1-00:00:00", "Requeue=1"):
        assert words in said
