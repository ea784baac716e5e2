"""What a compute node has for a run: scratch space, GPUs, its place in a job, weights, the run."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from geohsal.errors import GeohsalError
from geohsal.io.gdal import allowed_cores
from geohsal.io.run import Run
from geohsal.io.run_tables import read_config
from geohsal.models.weights import ensure_known, find_offline, local_name
from geohsal.workflows.doctor_check import GIB, Check

SLURM = ("srun", "sbatch", "squeue", "scontrol")
GIVEN_GPUS = ("SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
SCRATCH_GIB = 2.0


def check_scratch(environ: Mapping[str, str]) -> Check:
    """Whether temporary files have a place with room, and whether Slurm offers another."""
    name = "scratch"
    advice = "set TMPDIR to a folder on the node with room (setup of the cluster file)"
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryDirectory(dir=folder):
            free = shutil.disk_usage(folder).free / GIB
    except OSError as error:
        where = environ.get("TMPDIR") or "temporary files"
        found = f"{where}: {error.strerror or error}"
        return Check(name=name, level="bad", found=found, advice=advice)
    found = f"{folder}: {free:.1f} GiB free"
    asked, offered = environ.get("TMPDIR"), environ.get("SLURM_TMPDIR")
    if asked and Path(asked) != folder:
        found = f"{found}, though TMPDIR={asked}"
        return Check(name=name, level="note", found=found, advice=f"make {asked} writable")
    if offered and Path(offered) != folder:
        advice = f'not SLURM_TMPDIR ({offered}); to use that, set up export TMPDIR="$SLURM_TMPDIR"'
        return Check(name=name, level="note", found=found, advice=advice)
    if free < SCRATCH_GIB:
        return Check(name=name, level="note", found=found, advice=advice)
    return Check(name=name, level="good", found=found)


def check_gdal_variables(environ: Mapping[str, str]) -> Check:
    """Which of GDAL's variables are set; all cores means those of the node, not of the job."""
    names = sorted(name for name in environ if name.startswith(("GDAL_", "CPL_", "VSI_")))
    found = ", ".join(f"{name}={environ[name]}" for name in names) or "none set"
    cores, allowed = os.cpu_count() or 1, allowed_cores()
    if environ.get("GDAL_NUM_THREADS", "").upper() == "ALL_CPUS" and allowed < cores:
        return Check(
            name="gdal variables",
            level="note",
            found=f"{found}: {cores} threads on {allowed} cores",
            advice="unset GDAL_NUM_THREADS",
        )
    return Check(name="gdal variables", level="good", found=found)


def check_slurm() -> Check:
    there = [name for name in SLURM if shutil.which(name)]
    if len(there) == len(SLURM):
        return Check(name="slurm", level="good", found=", ".join(there))
    missing = [name for name in SLURM if name not in there]
    advice = "add Slurm's folder to PATH" if there else "submit from a login node, if you have one"
    found = f"no {', '.join(missing)} here"
    return Check(name="slurm", level="note", found=found, advice=advice)


def check_gpus(environ: Mapping[str, str], *, visible: int | None = None) -> Check:
    """Whether this process sees the GPUs that its job was given; `visible`: as torch counts."""
    seen = torch.cuda.device_count() if visible is None else visible
    given = next((name for name in GIVEN_GPUS if environ.get(name)), None)
    limit = environ.get("CUDA_VISIBLE_DEVICES")
    found = f"{seen} visible" + ("" if limit is None else f" (CUDA_VISIBLE_DEVICES={limit!r})")
    if given and not seen:
        return Check(
            name="gpus of the job",
            level="bad",
            found=f"{found}, though {given}={environ[given]}",
            advice="check nvidia-smi on the node, and that torch was built for its CUDA",
        )
    if given and seen < _gpu_count(given, environ[given]):
        return Check(
            name="gpus of the job",
            level="note",
            found=f"{found}, though {given}={environ[given]}",
            advice="good where each process is bound to GPUs of its own; else check "
            "the GPU options of the job and CUDA_VISIBLE_DEVICES",
        )
    return Check(name="gpus of the job", level="good", found=found)


def _gpu_count(name: str, said: str) -> int:
    """GPUs that a variable of Slurm's speaks of: their count, or their numbers as in 0,2-3."""
    if name == GIVEN_GPUS[0]:
        return int(said) if said.isdecimal() else 1
    ranges = [item.partition("-") for item in said.split(",")]
    spans = [(int(first), int(last or first)) for first, _, last in ranges if first.isdecimal()]
    return sum(last - first + 1 for first, last in spans) or 1


def check_place(environ: Mapping[str, str]) -> Check:
    """How many processes work together, and whether they were started so that they can meet."""
    name = "place"
    if "TORCHELASTIC_RUN_ID" in environ:
        found = f"process {environ.get('RANK')} of {environ.get('WORLD_SIZE')}, by torchrun"
        return Check(name=name, level="good", found=found)
    tasks = int(environ.get("SLURM_NTASKS", "1"))
    if tasks == 1:
        return Check(name=name, level="good", found="one process by itself")
    if "SLURM_STEP_ID" not in environ:
        found = f"a job of {tasks} tasks, but srun did not start this process"
        return Check(name=name, level="note", found=found, advice="put srun before the command")
    found = f"process {environ.get('SLURM_PROCID')} of {tasks}, by srun"
    if int(environ.get("SLURM_NNODES", "1")) > 1 and "MASTER_ADDR" not in environ:
        return Check(
            name=name,
            level="note",
            found=f"{found}, MASTER_ADDR not set",
            advice="set it to the address of the first node, as the texts of geohsal submit do",
        )
    where = f", meeting at {environ['MASTER_ADDR']}" if "MASTER_ADDR" in environ else ""
    return Check(name=name, level="good", found=found + where)


def check_run(run: Run) -> Check:
    """Whether this machine reaches the run and may write in it."""
    advice = "mount it here under the same path, or copy the run"
    try:
        with tempfile.TemporaryDirectory(dir=run.path, prefix=".doctor."):
            tiled = run.tiles.is_file()
    except OSError as error:
        found = f"{run.path}: {error.strerror or error}"
        return Check(name="run", level="bad", found=found, advice=advice)
    found = f"{run.path} may be written" + ("" if tiled else ", not tiled yet")
    return Check(name="run", level="good", found=found)


def check_weights(run: Run) -> Check:
    """Whether the run's initial weights are found without a network."""
    name = "weights"
    if not run.config.is_file():
        return Check(name=name, level="good", found="the run has no settings yet")
    try:
        model = read_config(run).model
        if model.weights is None:
            return Check(name=name, level="good", found="model.weights: none, random ones")
        ensure_known(model.weights, name=model.encoder)
        place = find_offline(model.weights, name=model.encoder)
    except GeohsalError as error:
        advice = "correct model.weights in the settings"
        return Check(name=name, level="bad", found=str(error), advice=advice)
    if place is not None:
        return Check(name=name, level="good", found=f"{model.weights}: {place}")
    file = local_name(model.weights, name=model.encoder)
    return Check(
        name=name,
        level="note",
        found=f"{model.weights}: on no disk here, needs a network",
        advice=f"put {file} into the folder that GEOHSAL_WEIGHTS names, or fill TORCH_HOME and "
        "HF_HOME on a machine with a network",
    )
