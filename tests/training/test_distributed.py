"""Two processes under torchrun: one model, counted once, and nothing lost by a signal or a kill."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rank_failure
import rank_probe
import torch
import yaml
from tiny_run import TINY_SETTINGS, geohsal

import geohsal as package
from geohsal.config.launch import STOP_SIGNALS
from geohsal.io.run import Round, Run, open_run
from geohsal.workflows.landscape import write_landscape

pytestmark = pytest.mark.slow

STEPS = 16
SETTINGS = (
    f"train.steps={STEPS}",
    "train.checkpoints=2",
    "train.batch_unlabelled=4",
    "train.checkpoint_minutes=1e-9",  # after every step
    "ssl.confidence_fallback=0.2",
    "ssl.ramp_share=0",
    "ssl.contrast_weight=0.1",
    "ssl.probe_weight=0.5",
    "prior.source=em",
)
FILES = ("model.safetensors", "statistics.safetensors")
PATIENCE = 150
"""Seconds after which a process that should have ended has hung."""


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a val scene that has labels; three labelled crops a step, two and one a rank."""
    folder = tmp_path_factory.mktemp("landscape")
    manifest = write_landscape(folder, shape=(192, 224))
    content = yaml.safe_load(manifest.read_text("utf-8"))
    for scene in content["scenes"]:
        if scene["id"] == "west_2":
            scene |= {"split": "val", "labels": scene["truth"]}
    manifest.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    (folder / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
    options = [part for text in SETTINGS for part in ("--set", text)]
    geohsal("tile", manifest, "-o", folder / "run", "-c", folder / "settings.yaml", *options)
    return open_run(folder / "run")


def torchrun(log: Path, *command: object) -> subprocess.Popen[bytes]:
    root = str(Path(package.__file__).parents[1])
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
            + [str(part) for part in command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )


def srun(log: Path, *command: object) -> list[int]:
    """Exit codes of two processes as srun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {
        "PYTHONPATH": str(Path(package.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_STEP_ID": "0",
    }
    with log.open("wb") as out:
        processes = [
            subprocess.Popen(
                [sys.executable, *[str(part) for part in command]],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | given | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            )
            for rank in (0, 1)
        ]
    try:
        return [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()


def finish(process: subprocess.Popen[bytes], log: Path) -> tuple[int, str]:
    """Exit code and output of a process that must end."""
    try:
        code = process.wait(PATIENCE)
    finally:
        process.kill()
    return code, log.read_text("utf-8")


@pytest.fixture(scope="module")
def whole(tiled: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, list[dict]]:
    """Trained by two processes without a break, and what each of them holds."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiled.path, folder / "run")
    log = folder / "log.txt"
    code, text = finish(torchrun(log, rank_probe.__file__, folder / "run", folder), log)
    assert code == 0, text
    held = [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    return open_run(folder / "run").round(0), held


@pytest.fixture
def run(tiled: Run, tmp_path: Path) -> Run:
    shutil.copytree(tiled.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def rank_pid(agent: int, rank: int) -> int:
    """The process of a rank, found among torchrun's children."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    for child in children:
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"no process of rank {rank}: {children}")


def wait_for_checkpoint(run: Run, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not run.round(0).checkpoint.exists():
        assert process.poll() is None, log.read_text("utf-8")
        assert time.monotonic() < until
        time.sleep(0.01)


def disturb(run: Run, log: Path, number: signal.Signals) -> tuple[int, str]:
    """Signal the second process as soon as there is a checkpoint."""
    process = torchrun(log, "-m", "geohsal", "train", run.path)
    wait_for_checkpoint(run, process, log)
    os.kill(rank_pid(process.pid, 1), number)
    return finish(process, log)


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("geohsal: error:")]


def assert_same(found: Round, expected: Round) -> None:
    for name in FILES:
        mine = (found.model_dir / name).read_bytes()
        assert mine == (expected.model_dir / name).read_bytes(), name
    history = [json.loads(one.metrics.read_text("utf-8"))["history"] for one in (found, expected)]
    assert history[0] == history[1]


def test_both_processes_hold_the_same_and_count_everything_once(
    whole: tuple[Round, list[dict]],
) -> None:
    round_, held = whole
    assert held[0] == held[1]
    alone = rank_probe.frozen_passes(round_.run_dir)
    assert alone == {name: held[0][name] for name in alone}
    assert sum(map(sum, alone["val"])) > 10_000
    metrics = json.loads(round_.metrics.read_text("utf-8"))
    assert metrics["steps"] == STEPS
    assert metrics["val_miou"] is not None
    rows = [json.loads(line) for line in round_.log.read_text("utf-8").splitlines()]
    assert [row["processes"] for row in rows] == [2, 2]
    assert all(
        {"supervised", "unsupervised", "error_mask", "contrast"} <= row.keys() for row in rows
    )
    assert rows[-1]["supervised"] < rows[0]["supervised"]


def test_a_signal_to_one_process_stops_both_and_loses_nothing(
    run: Run, whole: tuple[Round, list[dict]], tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    code, text = disturb(run, log, signal.SIGUSR2)
    assert code != 0
    (line,) = errors(text)
    assert f"of {STEPS}; the same command goes on from there" in line
    assert "exitcode  : 85" in text
    saved = torch.load(run.round(0).checkpoint, weights_only=True)["geohsal"]
    assert 0 < saved["step"] < STEPS
    assert saved["world"] == 2
    code, text = finish(torchrun(log, "-m", "geohsal", "train", run.path), log)
    assert code == 0, text
    assert not errors(text)
    assert_same(run.round(0), whole[0])


def test_a_killed_process_ends_both_and_the_same_command_goes_on(
    run: Run, whole: tuple[Round, list[dict]], tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    code, text = disturb(run, log, signal.SIGKILL)
    assert code != 0
    (line,) = errors(text)
    assert line.startswith("geohsal: error: another process of this training was lost (")
    assert line.endswith("; the same command goes on from the last checkpoint")
    assert "exitcode  : 75" in text
    assert not run.round(0).model_json.exists()
    code, text = finish(torchrun(log, "-m", "geohsal", "train", run.path), log)
    assert code == 0, text
    assert_same(run.round(0), whole[0])


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_to_a_whole_group_does_not_end_the_loaders_first(
    run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    root = str(Path(package.__file__).parents[1])
    log = tmp_path / "log.txt"
    changes = ("--set", "train.loader_workers=1", "--set", "train.steps=400")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "geohsal", "train", str(run.path), *changes],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    wait_for_checkpoint(run, process, log)
    os.killpg(process.pid, number)
    code, text = finish(process, log)
    assert code == 85, text
    assert len(errors(text)) == 1
    assert "Traceback" not in text
    assert "persistent_workers" not in text


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_process_is_said_once_and_ends_both(tmp_path: Path, failing: int) -> None:
    log = tmp_path / "log.txt"
    codes = srun(log, rank_failure.__file__, tmp_path, failing, "said")
    assert codes[failing] == max(codes) == 3, log.read_text("utf-8")  # launchers report the largest
    # the other has the code from the store, unless the first process took that with it
    assert codes[1 - failing] in ((1, 3) if failing == 0 else (3,)), log.read_text("utf-8")
    said = [(tmp_path / f"{rank}.txt").read_text("utf-8") for rank in (0, 1)]
    prefix = "" if failing == 0 else "process 1 of 2: "
    assert said[failing] == f"DataError: {prefix}the disk is gone"
    assert said[1 - failing].startswith("QuietError: another process of this training was lost")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_crash_of_one_process_lets_the_same_command_start_again(
    tmp_path: Path, failing: int
) -> None:
    log = tmp_path / "log.txt"
    codes = srun(log, rank_failure.__file__, tmp_path, failing, "unsaid")
    assert codes == ([1, 1] if failing == 0 else [75, 1]), log.read_text("utf-8")
    assert not (tmp_path / f"{failing}.txt").exists()
    said = (tmp_path / f"{1 - failing}.txt").read_text("utf-8")
    kind = "LostError" if failing == 1 else "QuietError"
    assert said.startswith(f"{kind}: another process of this training was lost (")
