"""Damaged records of a run end in one line, or are made anew where they are only a cache."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_run import geohsal

from geohsal.errors import ModelError
from geohsal.io.atomic import read_json
from geohsal.io.run import Run, open_run
from geohsal.training.model_io import load_model


@pytest.fixture(scope="module")
def good(tiny_landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("good") / "run"
    geohsal("tile", tiny_landscape, "-o", folder, "-c", tiny_landscape.parent / "settings.yaml")
    geohsal("train", folder)
    geohsal("query", folder, "--budget", "4regions")
    return open_run(folder)


@pytest.fixture
def run(good: Run, tmp_path: Path) -> Run:
    shutil.copytree(good.path, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", "garbage"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("model/model.json", ("train",)),
        ("metrics.json", ("train",)),
        ("model/model.json", ("query", "--budget", "4regions")),
        ("query.json", ("query", "--budget", "4regions")),
        ("model/model.json", ("evaluate",)),
    ],
)
def test_a_damaged_record_is_one_line(
    run: Run, name: str, command: tuple[str, ...], content: str
) -> None:
    (run.round(0).dir / name).write_text(content)
    if command[0] == "evaluate":
        (run.round(0).evaluation).unlink(missing_ok=True)
    result = geohsal(command[0], run.path, *command[1:], code=3)
    lines = result.stderr.strip().splitlines()
    assert len([line for line in lines if line.startswith("geohsal: error:")]) == 1
    assert Path(name).name in lines[-1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"garbage"])
def test_a_damaged_cache_is_made_anew(run: Run, content: bytes) -> None:
    part = next(iter((run.round(0).dir / "parts").glob("*.npz")))
    part.write_bytes(content)
    before = run.round(0).regions.read_bytes()
    geohsal("query", run.path, "--budget", "4regions", "--overwrite")
    assert run.round(0).regions.read_bytes() == before


def test_a_refused_query_leaves_the_old_one(run: Run) -> None:
    review = run.round(0).queries().read_bytes()
    geohsal("query", run.path, "--budget", "1px", "--overwrite", code=2)
    geohsal("query", run.path, "--budget", "", "--overwrite", code=2)
    assert run.round(0).queries().read_bytes() == review
    assert run.round(0).step == "queried"


def test_a_query_killed_before_its_project_is_completed_by_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_, command = run.round(0), ("query", run.path, "--budget", "4regions")
    project = round_.queries().with_suffix(".qgz")
    before = project.read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geohsal.workflows.query_write.write_project", killed)
        geohsal(*command, "--overwrite", code=130)
    assert round_.step == "trained"
    assert not project.exists()
    geohsal(*command)
    assert project.read_bytes() == before


@pytest.mark.parametrize("taught", [["x"], [0.5], 1, [-1, 0, 0, 0, 0], [None] * 5])
def test_shares_that_are_none_are_refused(run: Run, taught: object) -> None:
    passport = run.round(0).model_dir / "model.json"
    values = read_json(passport)
    passport.write_text(json.dumps(values | {"taught": taught}))
    with pytest.raises(ModelError, match=r"model\.json and weights do not fit together \(taught "):
        load_model(passport.parent)


def test_weights_that_differ_from_their_hash_are_refused(run: Run) -> None:
    weights = run.round(0).model_dir / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    result = geohsal("predict", run.path, "-o", run.path / "maps", code=3)
    assert "model.safetensors: differs from the hash in model.json" in result.stderr
