"""Maps of rasters: the same bytes at once, in shares, after a kill; a bad raster fails alone."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from tiny_run import geohsal

from geohsal.errors import PartsMissingError
from geohsal.io.atomic import OLD_S
from geohsal.io.fingerprint import file_sha256
from geohsal.io.manifest import load_manifest
from geohsal.io.parts import part_path
from geohsal.io.plan import Plan
from geohsal.io.run import Run
from geohsal.training.model_io import load_model
from geohsal.workflows import predict as steps
from geohsal.workflows import predict_parts, predict_work
from geohsal.workflows.engine import Chunk, Work, run_plan
from geohsal.workflows.pool import run_each
from geohsal.workflows.predict import outside, predict
from geohsal.workflows.predict_merge import MapMerge
from geohsal.workflows.predict_parts import plan_maps
from geohsal.workflows.predict_write import MapFolder
from geohsal.workflows.stages import StageFolder

SHAPE = (100, 650)
"""Rows and columns of the rasters: chunks of 320 pixels make three windows, the last one thin."""


@pytest.fixture(scope="module")
def rasters(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two rasters with the model's bands: the landscape's first scene, repeated and mirrored."""
    folder = tmp_path_factory.mktemp("rasters")
    with rasterio.open(load_manifest(trained.manifest).scenes[0].image) as source:
        image = np.tile(source.read(), (1, 1, 4))[:, : SHAPE[0], : SHAPE[1]]
        profile = source.profile | {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1]}
        profile |= {"interleave": "pixel", "compress": "deflate", "tiled": True}
        profile |= {"blockxsize": 512, "blockysize": 512}
        names = source.descriptions
    paths = folder / "one.tif", folder / "two.tif"
    for path, array in zip(paths, (image, image[:, :, ::-1]), strict=True):
        with rasterio.open(path, "w", **profile) as target:
            target.write(array)
            target.descriptions = names
    return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A model and two rasters, and hashes of what one undisturbed command makes of them."""

    model: Path
    rasters: tuple[Path, Path]
    whole: dict[str, str]

    def only(self, name: str) -> dict[str, str]:
        """Hashes of the maps of one raster."""
        return {path: digest for path, digest in self.whole.items() if path.startswith(name)}


@pytest.fixture(scope="module")
def asked(
    trained: Run, rasters: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Asked:
    model, out = trained.round(0).model_dir, tmp_path_factory.mktemp("whole")
    summary = predict(None, rasters, out=out, model=model)
    assert summary.written == ("one", "two")
    assert summary.left is None
    assert sum(summary.class_pixels["one"].values()) > 0
    assert not (out / ".predict").exists()
    return Asked(model=model, rasters=rasters, whole=hashes(out))


def hashes(out: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(out.glob("[!.]*.*"))}


def parts_in(out: Path) -> int:
    return len(list((out / ".predict" / "parts").glob("*.arrow")))


def test_shares_make_the_same_maps(asked: Asked, tmp_path: Path) -> None:
    command, left = ("predict", "--model", asked.model, *asked.rasters, "-o", tmp_path), []
    for index in (2, 0, 0, 1):  # in any order, one twice
        said = geohsal(*command, "--shard", f"{index}/3", "--json")
        left.append(json.loads(said.stdout)["left"])
        assert not list(tmp_path.glob("*.tif"))
    assert left == [4, 2, 2, 0]
    summary = predict(None, asked.rasters, out=tmp_path, model=asked.model)
    assert summary.written == ("one", "two")
    assert hashes(tmp_path) == asked.whole
    assert not (tmp_path / ".predict").exists()
    again = predict(None, asked.rasters, out=tmp_path, model=asked.model)
    assert again.kept == ("one", "two")


def test_what_comes_after_a_share_is_said(asked: Asked, tmp_path: Path) -> None:
    command = ("predict", "--model", asked.model, asked.rasters[0], "-o", tmp_path, "--shard")
    first, last = geohsal(*command, "0/2").stdout, geohsal(*command, "1/2").stdout
    assert first.endswith(
        "once nothing is left, the same command without --shard writes the maps\n"
    )
    assert last.endswith("\nnothing is left, the same command without --shard writes the maps\n")


def test_shares_that_cannot_open_the_same_rasters_share_out_the_others_alike(
    asked: Asked, tmp_path: Path
) -> None:
    late, out = tmp_path / "late.tif", tmp_path / "maps"
    given = [late, *asked.rasters]
    assert list(predict(None, given, out=out, model=asked.model, shard="0/2").failures) == ["late"]
    late.write_bytes(asked.rasters[0].read_bytes())
    share = predict(None, given, out=out, model=asked.model, shard="1/2")
    assert (share.left, dict(share.failures)) == (2, {}), "windows of the late one"
    predict(None, given, out=out, model=asked.model)
    found = hashes(out)
    assert {name: found[name] for name in asked.whole} == asked.whole


def test_relative_paths_can_be_judged_elsewhere(
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    judged_elsewhere: Callable[[ModuleType], Path],
) -> None:
    here = tmp_path / "here"
    shutil.copytree(asked.model, here / "model")
    shutil.copy(asked.rasters[0], here / "one.tif")
    judged_elsewhere(steps)
    monkeypatch.chdir(here)
    predict(None, ["one.tif"], out=Path("maps"), model=Path("model"))
    assert hashes(here / "maps") == asked.only("one")


def test_old_parts_of_a_plan_that_stands_stay(asked: Asked, tmp_path: Path) -> None:
    predict(None, asked.rasters[1:], out=tmp_path, model=asked.model, shard="0/2")
    old = sorted((tmp_path / ".predict" / "parts").iterdir())
    for path in old:
        os.utime(path, (time.time() - 2 * OLD_S,) * 2)
    predict(None, asked.rasters[:1], out=tmp_path, model=asked.model)
    assert all(path.exists() for path in old)
    predict(None, asked.rasters[1:], out=tmp_path, model=asked.model)
    assert hashes(tmp_path) == asked.whole
    assert not (tmp_path / ".predict").exists()


def test_a_killed_command_goes_on_where_it_stopped(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    run = predict_work.PredictWorker.run

    def watched(
        self: predict_work.PredictWorker, chunk: Chunk
    ) -> Mapping[str, NDArray[np.generic]]:
        if len(done) == 4:
            done.append("killed")
            raise KeyboardInterrupt
        done.append(chunk.chunk_id)
        return run(self, chunk)

    monkeypatch.setattr(predict_work.PredictWorker, "run", watched)
    monkeypatch.setattr(predict_parts, "GROUP_CHUNKS", 1)  # a raster is written, then the next
    with pytest.raises(KeyboardInterrupt):
        predict(None, asked.rasters, out=tmp_path, model=asked.model)
    assert len(list(tmp_path.glob("one_*.tif"))) == 5
    assert parts_in(tmp_path) == 1
    summary = predict(None, asked.rasters, out=tmp_path, model=asked.model)
    assert summary.kept == ("one",)
    assert summary.written == ("two",)
    done.remove("killed")
    assert len(done) == len(set(done)) == 6
    assert hashes(tmp_path) == asked.whole


@pytest.mark.slow
def test_processes_make_the_same_maps(asked: Asked, tmp_path: Path) -> None:
    geohsal("predict", "--model", asked.model, *asked.rasters, "-o", tmp_path, "--workers", "2")
    assert hashes(tmp_path) == asked.whole


def test_work_can_be_sent(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes get a small copy, and find everything again by it."""

    def copied(plan: Plan, work: Work, folder: Path, **settings: Any) -> int:
        sent = pickle.dumps(work)
        assert len(sent) < 4000
        return run_plan(plan, pickle.loads(sent), folder, **settings)

    monkeypatch.setattr(steps, "run_plan", copied)
    predict(None, asked.rasters[:1], out=tmp_path, model=asked.model)
    assert hashes(tmp_path) == asked.only("one")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_raster_that_cannot_be_read_fails_alone(
    asked: Asked, tmp_path: Path, workers: str
) -> None:
    torn, missing = tmp_path / "torn.tif", tmp_path / "missing.tif"
    torn.write_bytes(asked.rasters[0].read_bytes())
    with rasterio.open(torn) as source:
        right_block = int(source.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    with torn.open("r+b") as stream:
        stream.seek(right_block)
        stream.write(bytes(64))
    out = tmp_path / "maps"
    command = ("predict", "--model", asked.model, torn, asked.rasters[1], missing, "-o", out)
    command = (*command, "--workers", workers)
    told = geohsal(*command, "--shard", "0/1", "--json")
    assert "missing.tif" in told.stderr
    assert list(json.loads(told.stdout)["failures"]) == ["missing"]
    failed = geohsal(*command, code=4)
    assert "2 of 3 rasters failed" in failed.stderr
    told_of = json.loads((out / "failures.json").read_text("utf-8"))
    assert sorted(told_of) == ["missing", "torn"]
    assert "torn.tif: cannot be read" in told_of["torn"]
    assert hashes(out) == asked.only("two") | {"failures.json": file_sha256(out / "failures.json")}
    assert parts_in(out) == 1, "windows that were read are kept, failures are not"
    alone = geohsal("predict", "--model", asked.model, torn, "-o", out, code=3)
    assert "torn.tif: cannot be read" in alone.stderr
    torn.write_bytes(asked.rasters[0].read_bytes())
    assert predict(None, [torn], out=out, model=asked.model).written == ("torn",)
    assert list(json.loads((out / "failures.json").read_text("utf-8"))) == ["missing"]
    missing.write_bytes(asked.rasters[0].read_bytes())
    geohsal(*command)
    assert not (out / "failures.json").exists()


def test_a_damaged_part_is_made_anew_by_the_next_command(asked: Asked, tmp_path: Path) -> None:
    predict(None, asked.rasters[:1], out=tmp_path, model=asked.model, shard="0/1")
    part = sorted((tmp_path / ".predict" / "parts").iterdir())[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 255
    part.write_bytes(bytes(content))
    with pytest.raises(PartsMissingError, match="missing or damaged; run: geohsal predict"):
        predict(None, asked.rasters[:1], out=tmp_path, model=asked.model)
    assert not part.exists()
    assert not list(tmp_path.glob("*.tif"))
    predict(None, asked.rasters[:1], out=tmp_path, model=asked.model)
    assert hashes(tmp_path) == asked.only("one")


def test_maps_that_another_command_wrote_meanwhile_are_kept(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this one still writes, the other is done and removes the parts."""
    write = MapFolder.write

    def overtaken(self: MapFolder, *given: Any) -> dict[str, int]:
        monkeypatch.setattr(MapFolder, "write", write)
        predict(None, asked.rasters[:1], out=tmp_path, model=asked.model)
        return write(self, *given)

    monkeypatch.setattr(MapFolder, "write", overtaken)
    assert predict(None, asked.rasters[:1], out=tmp_path, model=asked.model).kept == ("one",)
    assert hashes(tmp_path) == asked.only("one")


def test_old_parts_of_other_plans_go(asked: Asked, tmp_path: Path) -> None:
    young, old = (part_path(tmp_path / ".predict" / "parts", name * 32) for name in "ab")
    old.parent.mkdir(parents=True)
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - 2 * OLD_S,) * 2)
    predict(None, asked.rasters[:1], out=tmp_path, model=asked.model)
    assert young.exists()
    assert not old.exists()


def test_addresses_stay_as_they_are(asked: Asked) -> None:
    opener = outside(["https://host/folder/b.tif", Path("a.tif")], load_model(asked.model))
    assert [(name, source.image) for name, source in opener.sources.items()] == [
        ("b", "https://host/folder/b.tif"),
        ("a", "a.tif"),
    ]


def test_rasters_that_shares_have_judged_are_written_together_and_first(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = tmp_path / "three.tif"
    shutil.copyfile(asked.rasters[1], third)
    rasters, out = [*asked.rasters, third], tmp_path / "maps"
    predict(None, rasters[1:], out=out, model=asked.model, shard="0/1")
    groups: list[list[str]] = []

    def watched(job: Any, items: Any, **options: Any) -> Any:
        groups.append([item.name for item, _ in items])
        return run_each(job, items, **options)

    monkeypatch.setattr(steps, "run_each", watched)
    monkeypatch.setattr(predict_parts, "GROUP_CHUNKS", 1)
    summary = predict(None, rasters, out=out, model=asked.model)
    assert groups == [["two", "three"], ["one"]]
    assert summary.written == tuple(summary.class_pixels) == ("one", "two", "three")
    assert {
        name: hash_ for name, hash_ in hashes(out).items() if "three" not in name
    } == asked.whole


def test_a_process_that_writes_maps_loads_no_torch(asked: Asked, tmp_path: Path) -> None:
    model = load_model(asked.model)
    target = MapFolder(out=tmp_path, model_hash=model.model_hash, classes=model.classes)
    stage, plan = StageFolder(path=tmp_path / "stage"), plan_maps([], model.config, model_hash="")
    merge = MapMerge(target=target, plan=plan, stage=stage, overwrite=False)
    code = "import pickle, sys; pickle.load(sys.stdin.buffer); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(merge), check=True)
