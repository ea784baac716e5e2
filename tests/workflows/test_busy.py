"""While a command changes a run, another one is told so in one line and changes nothing."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killing import snapshot
from rank_factory import each_rank
from tiny_run import geohsal

from geohsal.errors import BusyError, QuietError
from geohsal.io import lock
from geohsal.io.run import Run, open_run
from geohsal.training.ranks import Ranks
from geohsal.workflows.query import score
from geohsal.workflows.train import train

HOLD = """
import sys, time
from pathlib import Path
from geohsal.io.lock import changing
from geohsal.io.run import Run
with changing(Run(path=Path(sys.argv[1])), "train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture
def tiled(tiny_landscape: Path, tmp_path: Path) -> Run:
    settings = tiny_landscape.parent / "settings.yaml"
    geohsal("tile", tiny_landscape, "-o", tmp_path / "tiled", "-c", settings)
    return open_run(tmp_path / "tiled")


@contextmanager
def another_train(run: Run) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock as a training does."""
    argv = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refused(run: Run, process: subprocess.Popen[str], *argv: object) -> None:
    before = snapshot(run.path)
    result = geohsal(argv[0], run.path, *argv[1:], code=75)
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert line.startswith(
        f"geohsal: error: {run.path}: geohsal train (process {process.pid} on "
        f"{socket.gethostname()}, since "
    )
    assert line.endswith(
        "Z) is changing this run; wait until it has ended, then give this command again (nothing "
        "is changed)"
    )
    assert snapshot(run.path) == before


def test_a_second_command_is_refused_until_the_first_is_gone(run: Run, tmp_path: Path) -> None:
    budget = ("--budget", "4regions")
    reviewed = tmp_path / "reviewed.gpkg"
    with another_train(run) as process:
        refused(run, process, "train")
        refused(run, process, "query", *budget)
        said = geohsal("query", run.path, *budget, "--dry-run").stdout
        assert "4 regions" in said
        done = score(run.path, shard="0/1")  # shares change nothing of the round
        assert done.left == 0
        refused(run, process, "select", *budget)
        process.send_signal(signal.SIGKILL)
    geohsal("select", run.path, *budget)
    assert not (run.path / lock.NAME).exists()
    geohsal("answer", run.path, run.round(0).queries(), "-o", reviewed)
    with another_train(run) as process:
        refused(run, process, "ingest", reviewed)
        geohsal("ingest", run.path, reviewed, "--dry-run")
    geohsal("ingest", run.path, reviewed)
    with another_train(run) as process:
        refused(run, process, "ingest", "--undo")
    geohsal("ingest", run.path, "--undo")
    assert run.round(0).step == "queried"
    assert not (run.path / lock.NAME).exists()


def test_a_run_is_not_tiled_anew_while_it_is_trained(
    tiled: Run, tiny_landscape: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_landscape.parent, tmp_path / "landscape")
    manifest = folder / tiny_landscape.name
    text = manifest.read_text("utf-8")
    changed = re.sub(r'color: "#\w+"', 'color: "#010203"', text, count=1)
    manifest.write_text(changed, "utf-8")
    with another_train(tiled):
        before = snapshot(tiled.path)
        result = geohsal("tile", manifest, "-o", tiled.path, code=75)
        assert "is changing this run" in result.stderr
        assert snapshot(tiled.path) == before
        geohsal("tile", manifest, "-o", tiled.path, "--dry-run")
    geohsal("tile", manifest, "-o", tiled.path)
    assert "#010203" in tiled.manifest.read_text("utf-8")
    assert not (tiled.path / lock.NAME).exists()


def test_the_processes_of_one_training_count_as_one(tiled: Run) -> None:

    def work(ranks: Ranks) -> BaseException | None:
        try:
            train(tiled.path, ranks=ranks)
        except (BusyError, QuietError) as error:
            return error
        return None

    with another_train(tiled):
        first, second = each_rank(2, work)
    assert isinstance(first, BusyError)
    assert isinstance(second, QuietError)
    assert second.code == 75
    assert not tiled.round(0).dir.exists()


def test_a_round_that_changed_while_it_was_judged_is_not_chosen_from(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geohsal.workflows import query as workflow

    def trained_meanwhile(*_: object, **__: object) -> int:
        run.round(0).model_json.unlink()
        return 0

    monkeypatch.setattr(workflow, "score_chunks", trained_meanwhile)
    result = geohsal("query", run.path, "--budget", "4regions", code=2)
    assert (
        "another command has trained, ingested or tiled since this one began; give this command"
        in (result.stderr)
    )
