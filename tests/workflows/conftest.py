"""A tiny synthetic landscape, and runs on it, made once."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tiny_run import TINY_SETTINGS, geohsal

from geohsal.io.plan import Plan
from geohsal.io.run import Run, open_run
from geohsal.workflows.engine import Engine, Shard, Work, run_plan
from geohsal.workflows.landscape import write_landscape


@pytest.fixture(scope="session")
def tiny_landscape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a small synthetic landscape; settings.yaml lies beside it."""
    folder = tmp_path_factory.mktemp("landscape")
    manifest = write_landscape(folder, shape=(192, 224))
    (folder / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
    return manifest


@pytest.fixture
def judged_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ModuleType], Path]:
    """Sends the work of a module to another folder: a scheduler's workers stand in their own."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def sent(plan: Plan, work: Work, folder: Path, *, shard: Shard | None, engine: Engine) -> int:
        parts, copied = folder.absolute(), pickle.loads(pickle.dumps(work))
        with monkeypatch.context() as patch:
            patch.chdir(elsewhere)
            return run_plan(plan, copied, parts, shard=shard, engine=engine)

    def send(module: ModuleType) -> Path:
        monkeypatch.setattr(module, "run_plan", sent)
        return elsewhere

    return send


@pytest.fixture(scope="session")
def trained(tiny_landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose first round is trained."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    geohsal("tile", tiny_landscape, "-o", folder, "-c", tiny_landscape.parent / "settings.yaml")
    geohsal("train", folder)
    return open_run(folder)


@pytest.fixture(scope="session")
def shared_out(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, queried in two packages, with what two people answered beside it."""
    folder = tmp_path_factory.mktemp("asked")
    shutil.copytree(trained.path, folder / "run")
    run = open_run(folder / "run")
    said = geohsal(
        "query", run.path, "--budget", "10regions", "--packages", "2", "--overlap", "20%"
    )
    assert "2 regions in two packages: paid for once, but the minutes of both" in said.stdout
    assert "package 1: 6 regions" in said.stdout
    for number, noise in ((1, 0.1), (2, 0.3)):
        path = run.round(0).queries(package=number)
        geohsal("answer", run.path, path, "-o", folder / f"r{number}.gpkg", "--noise", noise)
    return run
