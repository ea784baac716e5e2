"""While a command changes a run, another one is told so in one line and changes nothing."""

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from killing import snapshot
from lock_holder import holder
from rank_factory import each_rank
from tiny_run import geohsal

from geohsal.errors import BusyError, QuietError
from geohsal.io import atomic, lock
from geohsal.io.run import Run, open_run
from geohsal.training.ranks import Ranks
from geohsal.workflows import query_score
from geohsal.workflows.query import score
from geohsal.workflows.stages import query_folder, tile_folder
from geohsal.workflows.train import train

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture
def tiled(tiny_landscape: Path, tmp_path: Path) -> Run:
    settings = tiny_landscape.parent / "settings.yaml"
    geohsal("tile", tiny_landscape, "-o", tmp_path / "tiled", "-c", settings)
    return open_run(tmp_path / "tiled")


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
    with holder(run) as process:
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
    with holder(run) as process:
        refused(run, process, "ingest", reviewed)
        geohsal("ingest", run.path, reviewed, "--dry-run")
    geohsal("ingest", run.path, reviewed)
    with holder(run) as process:
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
    with holder(tiled):
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

    with holder(tiled):
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


def test_a_query_that_is_refused_once_it_has_judged_says_what_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geohsal.workflows import query as workflow

    with ExitStack() as held:

        def trains_meanwhile(*arguments: Any, **keys: Any) -> int:
            done = query_score.score_chunks(*arguments, **keys)
            held.enter_context(holder(run))
            return done

        monkeypatch.setattr(workflow, "score_chunks", trains_meanwhile)
        said = geohsal("query", run.path, "--budget", "4regions", code=75).stderr
    assert "is changing this run; wait until it has ended, then give this command again" in said
    assert said.endswith("again (the round is unchanged; what was judged is kept)\n")
    assert any(query_folder(run).parts.iterdir())
    assert run.round(0).step == "trained"


def test_a_tile_without_work_leaves_what_another_one_is_at(
    tiled: Run, tiny_landscape: Path
) -> None:
    part = tile_folder(tiled).parts / "part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"")
    with holder(tiled):
        geohsal("tile", tiny_landscape, "-o", tiled.path)
        assert part.exists()
    geohsal("tile", tiny_landscape, "-o", tiled.path)
    assert not part.parent.parent.exists()
    assert not (tiled.path / lock.NAME).exists()


def test_a_tile_without_work_removes_what_a_killed_one_set_aside(
    tiled: Run, tiny_landscape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = tiled.path / ".tile_parts.0a1b2c3d.part"
    aside.mkdir()
    os.utime(aside, (0, 0))
    monkeypatch.setattr(atomic, "_cleared", set())  # as in a new process
    geohsal("tile", tiny_landscape, "-o", tiled.path)
    assert not aside.exists()


def test_a_run_is_tiled_the_first_time_by_one_command(tiny_landscape: Path, tmp_path: Path) -> None:
    argv = ("tile", tiny_landscape, "-o", tmp_path / "new")
    run = Run(path=tmp_path / "new")
    run.path.mkdir()
    with holder(run):
        assert "is changing this run" in geohsal(*argv, code=75).stderr
        assert [path.name for path in run.path.iterdir()] == [lock.NAME]
    geohsal(*argv, "-c", tiny_landscape.parent / "settings.yaml")
    assert not (run.path / lock.NAME).exists()
