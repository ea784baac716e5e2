"""A dry run says what the command then does, and changes nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from killing import snapshot
from tiny_run import geohsal

from geohsal.errors import PreemptedError
from geohsal.io import lock
from geohsal.io.atomic import read_record
from geohsal.io.run import Run, open_run
from geohsal.workflows.stages import query_folder
from geohsal.workflows.train import train


@pytest.fixture(scope="module")
def queried(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("queried")
    shutil.copytree(trained.path, folder / "run")
    geohsal("query", folder / "run", "--budget", "4regions")
    return open_run(folder / "run")


@pytest.fixture
def home(queried: Run, tmp_path: Path) -> Path:
    """A folder with a queried run in it."""
    shutil.copytree(queried.path, tmp_path / "home" / "run")
    return tmp_path / "home"


def dry(home: Path, *argv: object, code: int = 0) -> tuple[dict[str, Any], str]:
    """What a dry run says, to programs and to people; it must leave all as it is."""
    before = snapshot(home)
    values = json.loads(geohsal(*argv, "--dry-run", "--json", code=code).stdout)
    text = geohsal(*argv, "--dry-run", code=code)
    assert snapshot(home) == before
    return values, text.stdout if code == 0 else text.stderr


def untrained(home: Path) -> Path:
    """The run as it was before its round was trained."""
    shutil.rmtree(home / "run" / "round_000")
    return home / "run"


def test_a_training_is_told_by_its_steps_and_labels(home: Path) -> None:
    trained = read_record(home / "run" / "round_000" / "metrics.json")
    run_dir = untrained(home)
    values, text = dry(home, "train", run_dir, "--device", "cpu")
    assert not (run_dir / "round_000").exists()
    assert "round 0: would train 12 steps on cpu" in text
    assert "would start from weights drawn at random" in text
    assert text.endswith("nothing is changed\n")
    for name in ("steps", "regions", "withheld_regions", "labelled_pixels"):
        assert values[name] == trained[name]
    assert values["classes_missing"] == []
    assert "without any label" not in text
    assert (values["would"], values["steps_done"], values["dry_run"]) == ("train", 0, True)
    assert values["model"] == str(run_dir / "round_000" / "model")


def test_an_interrupted_training_is_told_by_where_it_stands(home: Path) -> None:
    run_dir, asked = untrained(home), iter(range(99))
    with pytest.raises(PreemptedError, match="at step 6 of 12"):
        train(run_dir, stop=lambda: next(asked) > 10)
    values, text = dry(home, "train", run_dir)
    assert (values["would"], values["steps_done"], values["steps"]) == ("go on", 6, 12)
    assert "would go on at step 6 of 12" in text
    assert f"would start from {run_dir / 'round_000' / 'training.ckpt'}" in text
    again, _ = dry(home, "train", run_dir, "--overwrite")
    assert (again["would"], again["steps_done"]) == ("train", 0)
    _, refused = dry(home, "train", run_dir, "--set", "train.lr=0.5", code=2)
    assert "an unfinished training with other settings" in refused


def test_classes_without_any_label_are_told(home: Path) -> None:
    run_dir = untrained(home)
    manifest = open_run(run_dir).manifest
    content = yaml.safe_load(manifest.read_text("utf-8"))
    names = [item["name"] for item in content["classes"]]
    added = {"id": len(names), "name": "glacier", "color": "#ffffff"}
    manifest.write_text(yaml.safe_dump(content | {"classes": [*content["classes"], added]}))
    values, text = dry(home, "train", run_dir)
    assert values["classes_missing"] == ["glacier"]
    assert "\nwithout any label: glacier\n" in text


def test_a_query_of_a_queried_round_tidies_nothing_up(home: Path) -> None:
    run = open_run(home / "run")
    (run.path / lock.NAME).write_text("{}")  # of a command that was killed
    query_folder(run).parts.mkdir(parents=True)  # of a share that was
    argv = ("query", run.path, "--budget", "4regions")
    values, _ = dry(home, *argv)
    assert values["regions"] == 4
    geohsal(*argv)
    assert not (run.path / lock.NAME).exists()
    assert not query_folder(run).path.exists()


def test_a_finished_training_has_nothing_to_do(home: Path) -> None:
    values, text = dry(home, "train", home / "run")
    assert values["would"] == "nothing"
    assert text.startswith("round 0: nothing to do, it is trained: ")
    _, refused = dry(home, "train", home / "run", "--overwrite", code=2)
    assert "is already queried" in refused


def test_of_several_processes_the_first_one_tells(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = untrained(home)
    several = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    said = []
    for rank in ("0", "1"):
        for name, value in (several | {"RANK": rank, "LOCAL_RANK": rank}).items():
            monkeypatch.setenv(name, value)
        said.append(geohsal("train", run_dir, "--dry-run", "--device", "cpu").stdout)
    assert "would train 12 steps on cpu, 2 processes" in said[0]
    assert said[1] == ""


def test_a_prediction_is_told_by_its_windows_and_bytes(home: Path) -> None:
    maps = home / "maps"
    argv = ("predict", home / "run", "-o", maps)
    values, text = dry(home, *argv)
    assert not maps.exists()
    assert sorted(values["scenes"]) == ["east_1", "east_2", "west_1", "west_2"]
    assert values["scenes"]["west_1"] == [192, 224]
    assert (values["chunks_done"], values["chunks_now"]) == (0, values["chunks"])
    assert values["chunks"] >= 4
    assert f"chunks to do now: {values['chunks']}; done before: 0" in text

    share = (*argv, "--shard", "0/2")
    own, text = dry(home, *share)
    assert 0 < own["chunks_now"] < values["chunks"]
    assert f"share 0/2: {own['chunks_now']}" in text
    geohsal(*share)
    rest, _ = dry(home, *argv)
    assert rest["chunks_done"] == own["chunks_now"]
    assert rest["chunks_now"] == values["chunks"] - own["chunks_now"]

    geohsal(*argv)
    written = sum(path.stat().st_size for path in maps.glob("*.tif"))
    assert 0.05 * values["unpacked_bytes"] < written < values["unpacked_bytes"]
    last, text = dry(home, *argv)
    assert last["scenes"] == {}
    assert sorted(last["kept"]) == sorted(values["scenes"])
    assert "nothing to do" in text


def test_a_raster_that_cannot_be_opened_is_told_among_others(home: Path) -> None:
    bad = home / "bad.tif"
    bad.write_bytes(b"no raster")
    good = home / "run" / "round_000" / "rasters" / "west_1_class.tif"
    values, text = dry(
        home, "predict", bad, good, "--model", home / "run/round_000/model", "-o", home / "maps"
    )
    assert sorted(values["failures"]) == ["bad", "west_1_class"]  # a class map has no such bands
    assert text.count("would fail: ") == 2


def test_an_export_is_told_by_its_scenes(home: Path) -> None:
    out = home / "map.gpkg"
    argv = ("export", home / "run", "-o", out)
    values, text = dry(home, *argv)
    assert (values["parts_done"], values["parts_now"], values["up_to_date"]) == (0, 4, False)
    rasters = home / "run" / "round_000" / "rasters"
    kinds = ("class", "state", "confidence")
    read = [path.stat().st_size for kind in kinds for path in rasters.glob(f"*_{kind}.tif")]
    assert values["raster_bytes"] == sum(read)
    assert "round 0: scenes to cut now: 4; cut before: 0 of 4" in text
    assert values["scenes_now"] == values["scenes"]

    share, text = dry(home, *argv, "--shard", "0/2")
    assert share["scenes_now"] == values["scenes"][::2]
    paths = [rasters / f"{name}_{kind}.tif" for name in share["scenes_now"] for kind in kinds]
    assert share["raster_bytes"] == sum(path.stat().st_size for path in paths)
    assert f"MB of rasters of: {', '.join(share['scenes_now'])}\n" in text
    geohsal(*argv, "--shard", "0/2")
    rest, text = dry(home, *argv)
    assert (rest["parts_done"], rest["parts_now"]) == (2, 2)
    assert rest["scenes_now"] == values["scenes"][1::2]
    assert rest["raster_bytes"] == values["raster_bytes"] - share["raster_bytes"]
    assert f"MB of rasters of: {', '.join(rest['scenes_now'])}\n" in text
    mine, text = dry(home, *argv, "--shard", "0/2")
    assert (mine["parts_now"], mine["raster_bytes"]) == (0, 0)
    assert "would read" not in text
    geohsal(*argv)
    done, text = dry(home, *argv)
    assert done["up_to_date"]
    assert text == f"nothing to do: {out} is up to date\n"
    _, refused = dry(home, *argv, "--sieve", "9", code=2)
    assert "exists and is of another request" in refused


@pytest.mark.parametrize("argv", ["predict RUN -o maps", "export RUN -o map.gpkg"])
def test_a_scheduler_is_not_asked_for_nothing(argv: str) -> None:
    result = geohsal(*argv.split(), "--dry-run", "--scheduler", "tcp://host:1", code=2)
    assert "--scheduler tcp://host:1: a dry run works here; give one of the two" in result.stderr
