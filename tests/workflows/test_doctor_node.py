"""What a compute node lacks is found from its environment, its disks and the run's settings."""

import os
import tempfile
from pathlib import Path

import pytest

from geohsal.config import load_config
from geohsal.io.gdal import file_threads
from geohsal.io.run import Run
from geohsal.io.run_tables import write_config
from geohsal.workflows import doctor_node as room
from geohsal.workflows.doctor import check_lines, check_torch, doctor
from geohsal.workflows.doctor_node import (
    check_gdal_variables,
    check_gpus,
    check_place,
    check_run,
    check_scratch,
    check_slurm,
    check_weights,
)

STEP = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0", "SLURM_NNODES": "2"}


def run_with(tmp_path: Path, *overrides: str) -> Run:
    run = Run(path=tmp_path)
    write_config(run.config, load_config("cpu-small", overrides=overrides), version="0")
    return run


def test_scratch_must_be_there_and_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here = {"TMPDIR": str(tmp_path)}
    good = check_scratch(here)
    assert (good.level, good.advice) == ("good", "")
    assert good.found.startswith(f"{tmp_path}: ")
    offered = check_scratch(here | {"SLURM_TMPDIR": "/gone"})
    assert offered.found == good.found
    assert (offered.level, offered.advice[:25]) == ("note", "not SLURM_TMPDIR (/gone);")
    assert check_scratch(here | {"SLURM_TMPDIR": str(tmp_path)}).level == "good"
    other = check_scratch({"TMPDIR": "/gone"})
    assert (other.level, other.advice) == ("note", "make /gone writable")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    gone = check_scratch({})
    assert (gone.level, "No such file" in gone.found) == ("bad", True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(room, "SCRATCH_GIB", 1e9)
    full = check_scratch(here)
    assert (full.level, full.advice.startswith("set TMPDIR")) == ("note", True)


def test_a_system_without_core_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert check_gdal_variables({"GDAL_NUM_THREADS": "ALL_CPUS"}).level == "good"
    assert ", 6 CPU cores" in check_torch().found
    assert file_threads() <= 6


def test_all_cores_of_a_node_are_too_many_threads_for_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert check_gdal_variables({}).found == "none set"
    monkeypatch.setattr(os, "cpu_count", lambda: 512)
    check = check_gdal_variables({"GDAL_NUM_THREADS": "all_cpus", "HOME": "/"})
    assert (check.level, check.advice) == ("note", "unset GDAL_NUM_THREADS")
    assert check.found.startswith("GDAL_NUM_THREADS=all_cpus: 512 threads on ")
    assert check_gdal_variables({"GDAL_NUM_THREADS": "4"}).level == "good"


def test_gpus_that_the_job_was_given_must_be_seen() -> None:
    assert check_gpus({}, visible=0).level == "good"
    hidden = check_gpus({"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": ""}, visible=0)
    assert hidden.level == "bad"
    assert hidden.found == "0 visible (CUDA_VISIBLE_DEVICES=''), though SLURM_GPUS_ON_NODE=2"
    assert check_gpus({"SLURM_GPUS_ON_NODE": "2"}, visible=2).level == "good"


@pytest.mark.parametrize(
    ("given", "visible", "level"),
    [
        ({"SLURM_GPUS_ON_NODE": "4"}, 1, "note"),
        ({"SLURM_JOB_GPUS": "0,2-3"}, 2, "note"),
        ({"SLURM_JOB_GPUS": "0,2-3"}, 3, "good"),
        ({"SLURM_JOB_GPUS": "3"}, 1, "good"),
        ({"SLURM_STEP_GPUS": "0"}, 0, "bad"),
    ],
)
def test_fewer_gpus_than_given_are_told(given: dict[str, str], visible: int, level: str) -> None:
    check = check_gpus(given, visible=visible)
    ((name, text),) = given.items()
    assert check.level == level
    assert (f"{visible} visible, though {name}={text}" in check.found) == (level != "good")


@pytest.mark.parametrize(
    ("environ", "level", "found"),
    [
        ({}, "good", "one process by itself"),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "good", "one process by itself"),
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"},
            "good",
            "process 1 of 2, by torchrun",
        ),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "note", "srun did not start this process"),
        (STEP, "note", "process 2 of 4, by srun, MASTER_ADDR not set"),
        (STEP | {"MASTER_ADDR": "10.0.0.1"}, "good", "by srun, meeting at 10.0.0.1"),
    ],
)
def test_the_place_of_a_process(environ: dict[str, str], level: str, found: str) -> None:
    check = check_place(environ)
    assert check.level == level
    assert found in check.found
    assert (level == "good") != bool(check.advice)


def test_without_slurm_the_doctor_says_where_to_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_slurm().found == "no srun, sbatch, squeue, scontrol here"
    for name in ("srun", "squeue", "scontrol"):
        (tmp_path / name).touch(mode=0o755)
    assert check_slurm().advice == "add Slurm's folder to PATH"
    (tmp_path / "sbatch").touch(mode=0o755)
    assert check_slurm().level == "good"


def test_a_run_must_be_reached_and_written(tmp_path: Path) -> None:
    assert check_run(Run(path=tmp_path)).found == f"{tmp_path} may be written, not tiled yet"
    assert not list(tmp_path.iterdir())
    gone = check_run(Run(path=tmp_path / "gone"))
    assert (gone.level, gone.found) == ("bad", f"{tmp_path}/gone: No such file or directory")


def test_weights_that_need_a_network_are_named_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("GEOHSAL_WEIGHTS", str(tmp_path))
    assert check_weights(Run(path=tmp_path)).found == "the run has no settings yet"
    assert "random ones" in check_weights(run_with(tmp_path)).found
    run = run_with(tmp_path, f"model.weights={name}", "model.encoder=resnet18")
    lacking = check_weights(run)
    assert (lacking.level, lacking.found) == (
        "note",
        f"{name}: on no disk here, needs a network",
    )
    assert lacking.advice.startswith(f"put {name}.safetensors into the folder")
    (tmp_path / f"{name}.safetensors").touch()
    assert check_weights(run).found == f"{name}: {tmp_path}/{name}.safetensors"
    wrong = check_weights(run_with(tmp_path, "model.weights=ResNet18_Weights.NOTHING"))
    assert wrong.level == "bad"


def test_the_doctor_of_a_run_adds_its_lines(tmp_path: Path) -> None:
    lines = check_lines(doctor(tmp_path, run_dir=run_with(tmp_path).path))
    names = [line.split()[1] for line in lines]
    assert names[-2:] == ["run", "weights"]
