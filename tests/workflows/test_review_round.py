"""From a queried round over answers and people to labels, and back."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from rasterio.features import geometry_mask
from review_factory import (
    CLASSES,
    GRIDS,
    SIDE,
    delete,
    make_maps,
    make_regions,
    person,
    reader_of,
    tick,
)
from tiny_run import geohsal

from geohsal.config import Config, OutputConfig, TileConfig
from geohsal.errors import (
    DataError,
    LabelError,
    PartialError,
    RequestError,
    ReviewError,
    RunError,
)
from geohsal.geo.scene import QueryRegion, SceneMaps
from geohsal.io.atomic import read_json, write_json
from geohsal.io.cog import write_cog
from geohsal.io.geopackage import file_groups
from geohsal.io.label_store import LabelArrays, read_label_raster
from geohsal.io.ledger import active_entries, read_ledger, replay
from geohsal.io.review_file import write_review
from geohsal.io.round_record import answers_path, write_answers, write_regions
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows import ingest_record
from geohsal.workflows.answer import answer
from geohsal.workflows.export import export
from geohsal.workflows.ingest import ingest
from geohsal.workflows.query import query
from geohsal.workflows.status import status
from geohsal.workflows.tile import tile
from geohsal.workflows.train import train

CELLS = ((0, 0), (16, 32), (48, 16))
CONFIG = Config(tile=TileConfig(core_px=64, overlap_px=0), output=OutputConfig(sieve_px=0))


@dataclass(frozen=True, kw_only=True)
class Queried:
    """A run whose round 0 is queried."""

    run: Run
    files: tuple[Path, ...]
    regions: list[QueryRegion]
    maps: dict[str, SceneMaps]
    truth: dict[str, np.ndarray]

    @property
    def path(self) -> Path:
        return self.run.path

    def labels(self, scene_id: str) -> LabelArrays:
        return read_label_raster(self.run.labels(scene_id))

    def cell(self, array: np.ndarray, region: QueryRegion) -> np.ndarray:
        top, left = int(region.cell.row_off), int(region.cell.col_off)
        return array[top : top + 16, left : left + 16]


def fake_query(run: Run, round_: Round, maps: dict[str, SceneMaps]) -> Queried:
    """What `query` leaves behind, without a model."""
    scenes = load_scenes(run)
    round_.model_dir.mkdir(parents=True, exist_ok=True)
    write_json(round_.model_json, {})
    regions = [r for name, scene in scenes.items() for r in make_regions(scene, maps[name], CELLS)]
    regions = [
        dataclasses.replace(region, rank=rank, round=round_.index)
        for rank, region in enumerate(regions, 1)
    ]
    files, answers = [], []
    for name, group in file_groups(scenes.values()):
        files.append(round_.queries(name))
        ids = {scene.scene_id for scene in group}
        answers += write_review(
            files[-1],
            regions=[region for region in regions if region.scene_id in ids],
            scenes=scenes,
            maps=reader_of(maps),
            classes=CLASSES,
            config=CONFIG.output,
            provenance={"request": "abc"},
        )
    for name, scene in scenes.items():
        classes = np.stack([maps[name].refined, maps[name].teacher])
        for kind, array, nodata in (
            ("class", classes, 255),
            ("state", maps[name].state, 0),
            ("confidence", maps[name].confidence, float("nan")),
        ):
            write_cog(
                round_.raster(name, kind),
                array,
                scene=scene,
                nodata=nodata,
                band_names=["refined", "teacher"][: len(array)] if kind == "class" else [kind],
            )
    write_regions(round_.regions, regions, scenes)
    write_answers(answers_path(round_), answers)
    write_json(round_.query_json, {"request": "abc"})
    return Queried(run=run, files=tuple(files), regions=regions, maps=maps, truth={})


@pytest.fixture(scope="module")
def originals() -> dict[Any, Queried]:
    """Runs that tests copy instead of making them anew."""
    return {}


@pytest.fixture
def make_queried(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_raster: Callable[..., Path],
    make_manifest: Callable[..., Path],
    originals: dict[Any, Queried],
) -> Callable[..., Queried]:
    def make(grids: tuple[str, ...] = ("utm",), *, truth: bool = True) -> Queried:
        original = originals.get((grids, truth))
        if original is None:
            original = originals[grids, truth] = build(grids, truth)
        run = open_run(shutil.copytree(original.path, tmp_path / "run"))
        files = tuple(run.round(0).dir / path.name for path in original.files)
        return dataclasses.replace(original, run=run, files=files)

    def build(grids: tuple[str, ...], truth: bool) -> Queried:
        scenes: list[dict[str, Any]] = []
        truths, maps = {}, {}
        for seed, name in enumerate(grids):
            crs, transform = GRIDS[name]
            place = {
                "crs": crs.to_wkt() if crs else None,
                "transform": None if transform.is_identity else transform,
            }
            maps[name] = make_maps(seed)
            image = np.where(maps[name].state == 0, 0, 100).astype(np.uint8)
            wrong = np.random.default_rng(seed).random((13, 13)) < 0.4
            blocks = np.kron(wrong, np.ones((5, 5), bool))[:SIDE, :SIDE]
            truths[name] = np.where(blocks, 2, maps[name].teacher).astype(np.uint8)
            truths[name][50:53, 20:25] = 255
            scene: dict[str, Any] = {
                "id": name,
                "image": make_raster(f"{name}.tif", np.stack([image] * 3), nodata=0, **place),
            }
            if truth:
                scene["truth"] = {
                    "path": make_raster(f"{name}_truth.tif", truths[name], **place),
                    "ignore": [255],
                }
            if crs is None:
                scene["crs"] = "local"
            scenes.append(scene)
        classes = [{"id": c.class_id, "name": c.name, "color": c.color} for c in CLASSES]
        manifest = make_manifest(scenes, classes=classes)
        folder = tmp_path_factory.mktemp("original") / "run"
        tile(manifest, folder, config=CONFIG)
        run = open_run(folder)
        queried = fake_query(run, run.round(0), maps)
        return dataclasses.replace(queried, truth=truths)

    return make


@pytest.fixture
def queried(make_queried: Callable[..., Queried]) -> Queried:
    return make_queried()


def same_as_ledger(queried: Queried) -> bool:
    """labels/<scene>.tif == replay(manifest labels, ledger)."""
    entries = active_entries(read_ledger(queried.run.ledger))
    return all(
        replay(
            read_label_raster(queried.run.base_labels(name)),
            [entry for entry in entries if entry.scene_id == name],
        ).equals(queried.labels(name))
        for name in queried.maps
    )


@pytest.mark.parametrize("grids", [("utm",), ("utm", "utm33"), ("grid",), ("grid", "turned")])
def test_what_the_oracle_says_is_what_training_reads(
    make_queried: Callable[..., Queried], tmp_path: Path, grids: tuple[str, ...]
) -> None:
    queried = make_queried(grids)
    filled = []
    for number, path in enumerate(queried.files):
        filled.append(tmp_path / f"reviewed_{number}.gpkg")
        summary = answer(queried.path, path, filled[-1])
        assert summary.written
    result = ingest(queried.path, filled)
    assert result.action == "ingested"
    assert result.done == len(queried.regions)
    for region in queried.regions:
        labels = queried.labels(region.scene_id)
        truth = np.where(region.mask, queried.cell(queried.truth[region.scene_id], region), 255)
        assert np.array_equal(queried.cell(labels.classes, region), truth)
        known = truth != 255
        numbers = np.unique(queried.cell(labels.regions, region)[known])
        assert len(numbers) == 1
        assert (queried.cell(labels.rounds, region)[known] == 0).all()
    assert same_as_ledger(queried)
    assert queried.run.current.index == 1
    assert result.unknown_pixels == sum(
        int((queried.cell(queried.truth[r.scene_id], r)[r.mask] == 255).sum())
        for r in queried.regions
    )


def test_the_oracle_takes_every_path_a_person_has(queried: Queried, tmp_path: Path) -> None:
    out = tmp_path / "reviewed.gpkg"
    summary = answer(queried.path, queried.files[0], out)
    assert summary.done == 3
    assert min(summary.redrawn, summary.added, summary.reclassed) > 0
    frame = geopandas.read_file(out, layer="query_regions")
    assert set(frame.status) == {"done"}
    assert set(frame.reviewed_by) == {"oracle"}
    answers = geopandas.read_file(out, layer="answers")
    assert answers.geometry.is_valid.all()
    assert len(answers.sindex) == len(answers)
    styles = geopandas.read_file(out, layer="layer_styles", ignore_geometry=True)
    assert len(styles) == 4
    again = answer(queried.path, queried.files[0], out)
    assert not again.written
    with pytest.raises(RequestError, match="exists with other answers; give --overwrite"):
        answer(queried.path, queried.files[0], out, noise=1.0)
    assert answer(queried.path, queried.files[0], out, noise=1.0, overwrite=True).written


def test_the_oracle_refuses_what_it_cannot_do(
    make_queried: Callable[..., Queried], tmp_path: Path
) -> None:
    queried = make_queried(truth=False)
    out = tmp_path / "out.gpkg"
    with pytest.raises(LabelError, match="scene 'utm' has no truth to answer from; add `truth:`"):
        answer(queried.path, queried.files[0], out)
    with pytest.raises(RequestError, match="is the review file itself"):
        answer(queried.path, queried.files[0], queried.files[0])
    with pytest.raises(RequestError, match="noise must be shares"):
        answer(queried.path, queried.files[0], out, noise=2)
    tick(queried.files[0])
    with pytest.raises(ReviewError, match="has been edited or is open; the oracle fills untouched"):
        answer(queried.path, queried.files[0], out)
    assert not out.exists()


def test_noise_is_seeded_and_skips_regions(queried: Queried, tmp_path: Path) -> None:
    one, other, third = (tmp_path / f"{number}.gpkg" for number in range(3))
    answer(queried.path, queried.files[0], one, noise=0.5, slop_px=2, seed=3)
    summary = answer(queried.path, queried.files[0], other, noise=0.5, slop_px=2, seed=3)
    columns = ["region_id", "assigned_class", "geometry"]
    frames = [geopandas.read_file(path, layer="answers")[columns] for path in (one, other)]
    assert frames[0].equals(frames[1])
    assert summary.skipped == 0
    assert answer(queried.path, queried.files[0], third, skip=1.0).skipped == 3


def test_a_persons_edits_become_labels_ledger_and_polygons(queried: Queried) -> None:
    path = queried.files[0]
    with person(path, "query_regions") as frame:
        frame["status"] = ["done", "done", "unsure"]
        frame["assigned_class"] = [2, None, None]
        frame["reviewed_by"] = "Ada"
        frame["reviewed_ms"] = [1_700_000_000_000, 1_700_000_045_000, 1_700_009_999_000]
    with person(path, "answers") as frame:
        own = frame[frame.region_id == queried.regions[1].region_id]
        removed = own.index[0]
        gone = own.geometry[removed]
        delete(frame, removed)
        x, y = own.total_bounds[0], own.total_bounds[3]
        square = shapely.box(x, y - 30, x + 30, y)
        frame.loc[frame.index.max() + 1] = {
            name: {"geometry": square, "assigned_class": 1}.get(name) for name in frame.columns
        }
    summary = ingest(queried.path, [path])
    assert (summary.done, summary.unsure, summary.deleted, summary.added) == (2, 1, 1, 1)
    labels = queried.labels("utm")
    first, second, third = queried.regions
    assert np.array_equal(queried.cell(labels.classes, first), np.where(first.mask, 2, 255))
    refined = queried.cell(queried.maps["utm"].refined, second)
    expected = np.where(second.mask, refined, 255)
    burnt = queried.cell(burn(gone), second)
    expected[burnt] = 255
    expected[0:3, 0:3] = np.where(second.mask[0:3, 0:3], 1, 255)
    assert np.array_equal(queried.cell(labels.classes, second), expected)
    assert (queried.cell(labels.classes, third) == 255).all()
    entries = active_entries(read_ledger(queried.run.ledger))
    assert [entry.status for entry in entries] == ["done", "done", "unsure"]
    assert [entry.pixels for entry in entries] == [region.pixels for region in queried.regions]
    assert [entry.seconds for entry in entries] == [20.0, 45.0, 20.0]
    assert entries[1].unknown_pixels == int((second.mask & (expected == 255)).sum())
    assert {entry.reviewer for entry in entries} == {"Ada"}
    taken = geopandas.read_file(queried.run.answers, layer="labels")
    assert taken.crs == "EPSG:32632"
    assert taken.area.sum() == pytest.approx(100 * (labels.rounds == 0).sum())
    assert set(taken.reviewed_at) == {"2023-11-14T22:13:20Z", "2023-11-14T22:14:05Z"}
    record = read_json(queried.run.round(0).ingest_json)
    assert list(record["files"]) == [path.name]
    assert record["class_pixels"] == summary.class_pixels


def burn(geometry: object) -> np.ndarray:
    return geometry_mask([geometry], (SIDE, SIDE), GRIDS["utm"][1], invert=True)


def test_the_summary_says_whether_asking_was_worth_it(queried: Queried, tmp_path: Path) -> None:
    out = tmp_path / "reviewed.gpkg"
    answer(queried.path, queried.files[0], out)
    worth = ingest(queried.path, [out]).worth
    assert worth is not None
    wrong, pixels = {False: 0, True: 0}, {False: 0, True: 0}
    for region in queried.regions:
        truth = queried.cell(queried.truth["utm"], region)
        known = region.mask & (truth != 255)
        wrong[region.audit] += int(
            (queried.cell(queried.maps["utm"].teacher, region) != truth)[known].sum()
        )
        pixels[region.audit] += int(known.sum())
    assert worth.asked_pixels == pixels[False]
    assert worth.asked_teacher_wrong == pytest.approx(wrong[False] / pixels[False])
    assert worth.audit_teacher_wrong == pytest.approx(wrong[True] / pixels[True])


def test_the_same_files_again_do_nothing_and_others_are_refused(
    queried: Queried, tmp_path: Path
) -> None:
    path = queried.files[0]
    tick(path)
    dry = ingest(queried.path, [path], dry_run=True)
    assert dry.action == "would ingest"
    assert not queried.run.ledger.exists()
    ingest(queried.path, [path])
    before = queried.run.ledger.read_bytes()
    copy = tmp_path / "renamed.gpkg"
    shutil.copy(path, copy)
    again = ingest(queried.path, [copy])
    assert again.action == "nothing"
    assert again.notes == ("round 0 holds the answers of queries_r000.gpkg already",)
    assert queried.run.ledger.read_bytes() == before
    tick(copy, "unsure", queried.regions[0].region_id)
    with pytest.raises(
        RunError, match=r"round 0 is already ingested from queries_r000\.gpkg; take"
    ):
        ingest(queried.path, [copy])


def test_a_review_without_a_done_region_is_refused(queried: Queried) -> None:
    with pytest.raises(ReviewError, match=r"no region is done \(3 todo, 0 unsure, 0 skipped\)"):
        ingest(queried.path, queried.files)
    assert queried.run.current.step == "queried"


def test_part_of_the_regions_is_enough(queried: Queried) -> None:
    tick(queried.files[0], region_id=queried.regions[1].region_id)
    summary = ingest(queried.path, queried.files)
    assert (summary.done, summary.todo) == (1, 2)
    assert len(active_entries(read_ledger(queried.run.ledger))) == 1


def test_a_scene_whose_file_is_missing_is_named(
    make_queried: Callable[..., Queried], tmp_path: Path
) -> None:
    queried = make_queried(("grid", "turned"))
    one, other = queried.files
    tick(one)
    with pytest.raises(
        ReviewError, match=rf"{other.name} \(3 regions\) is missing; give all files"
    ):
        ingest(queried.path, [one])
    summary = ingest(queried.path, [one], accept_partial=True)
    assert (summary.done, summary.todo) == (3, 3)
    assert f"{other.name} (3 regions) is missing; what only they" in " ".join(summary.notes)


def test_ingest_in_the_wrong_order_is_refused(queried: Queried) -> None:
    tick(queried.files[0])
    queried.run.round(0).query_json.unlink()
    with pytest.raises(
        RunError, match="round 0 is trained, nothing of it is under review; run: geo"
    ):
        ingest(queried.path, queried.files)
    with pytest.raises(RequestError, match="give the reviewed files, or --undo and no file"):
        ingest(queried.path, [], undo=False)
    with pytest.raises(RunError, match="no round has been ingested, there is nothing to take back"):
        ingest(queried.path, undo=True)


def test_undo_brings_back_what_was_until_the_next_round_has_trained(queried: Queried) -> None:
    before = queried.labels("utm")
    tick(queried.files[0])
    ingest(queried.path, queried.files)
    assert ingest(queried.path, undo=True, dry_run=True).action == "would undo"
    assert queried.run.current.index == 1
    assert ingest(queried.path, undo=True).action == "undone"
    assert queried.labels("utm").equals(before)
    assert queried.run.current.step == "queried"
    assert len(geopandas.read_file(queried.run.answers, layer="labels")) == 0
    with pytest.raises(RunError, match="no round has been ingested"):
        ingest(queried.path, undo=True)
    ingest(queried.path, queried.files)
    assert same_as_ledger(queried)
    following = queried.run.round(1)
    following.model_dir.mkdir(parents=True)
    write_json(following.model_json, {})
    with pytest.raises(
        RunError, match="round 1 has trained on the answers of round 0; they can no"
    ):
        ingest(queried.path, undo=True)


STEPS = ("append", "write_label_raster", "write_answers_file", "write_json")


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_killed_ingest_is_finished_by_the_same_command(
    queried: Queried, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    tick(queried.files[0])
    real = getattr(ingest_record, step)

    def dies(*args: Any, **kwargs: Any) -> None:
        if after:
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ingest_record, step, dies)
        with pytest.raises(Killed):
            ingest(queried.path, queried.files)
    ingest(queried.path, queried.files)
    assert queried.run.current.index == 1
    assert len(read_ledger(queried.run.ledger)) == 3
    assert same_as_ledger(queried)
    assert len(geopandas.read_file(queried.run.answers, layer="labels")) > 0


@pytest.mark.parametrize("step", STEPS[:3])
def test_a_killed_undo_is_finished_by_the_same_command(
    queried: Queried, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = queried.labels("utm")
    tick(queried.files[0])
    ingest(queried.path, queried.files)
    real = getattr(ingest_record, step)

    def dies(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ingest_record, step, dies)
        with pytest.raises(Killed):
            ingest(queried.path, undo=True)
    with pytest.raises(RunError, match="an undo of round 0 was interrupted: finish it with"):
        ingest(queried.path, queried.files)
    ingest(queried.path, undo=True)
    assert queried.labels("utm").equals(before)
    assert queried.run.current.step == "queried"


def test_nothing_goes_on_before_an_interrupted_undo_is_finished(
    queried: Queried, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*args: Any, **kwargs: Any) -> None:
        raise Killed

    before = queried.labels("utm")
    tick(queried.files[0])
    ingest(queried.path, queried.files)
    with monkeypatch.context() as patch:
        patch.setattr(ingest_record, "write_label_raster", dies)
        with pytest.raises(Killed):
            ingest(queried.path, undo=True)
    words = "an undo of round 0 was interrupted: finish it with"
    command = f"geohsal ingest {queried.path} --undo"
    said = status(queried.path)
    assert (said.next_step, said.next_command.replace("'", "")) == (words, command)
    for work in (train, query):
        with pytest.raises(RunError) as refused:
            work(queried.path)
        assert str(refused.value) == f"{queried.path}: {words}: {command}"
    following = queried.run.round(1)  # an older geohsal let it train
    write_json(following.model_json, {})
    way = f"round 1 has trained since, on labels that no longer hold: move {following.dir} away"
    assert way in status(queried.path).next_step
    for files, undo in (((), True), (queried.files, False)):
        with pytest.raises(RunError, match=way):
            ingest(queried.path, files, undo=undo)
    following.dir.rename(queried.path.parent / "away")
    assert ingest(queried.path, undo=True).action == "undone"
    assert queried.labels("utm").equals(before)
    assert queried.run.current.step == "queried"


def test_other_answers_after_a_kill_replace_the_half_taken_ones(
    queried: Queried, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(queried.files[0])

    def dies(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ingest_record, "write_answers_file", dies)
        with pytest.raises(Killed):
            ingest(queried.path, queried.files)
    tick(queried.files[0], "skipped", queried.regions[0].region_id)
    ingest(queried.path, queried.files)
    assert (queried.cell(queried.labels("utm").classes, queried.regions[0]) == 255).all()
    assert same_as_ledger(queried)


def test_later_rounds_overrule_earlier_labels_and_say_so(queried: Queried) -> None:
    tick(queried.files[0])
    ingest(queried.path, queried.files)
    second = fake_query(queried.run, queried.run.round(1), queried.maps)
    with person(second.files[0], "query_regions") as frame:
        frame["status"] = "done"
        frame["assigned_class"] = 0
    summary = ingest(queried.path, second.files)
    assert summary.changed_labels
    assert summary.changed_labels[0].startswith("region utm_r000000_c000000: ")
    assert " px from forest & shrub to water" in " ".join(summary.changed_labels)
    labels = queried.labels("utm")
    for region in queried.regions:
        assert (queried.cell(labels.classes, region)[region.mask] == 0).all()
        assert (queried.cell(labels.rounds, region)[region.mask] == 1).all()
    numbers = [entry.region_number for entry in read_ledger(queried.run.ledger)]
    assert len(set(numbers)) == len(numbers) == 6


def test_nothing_changes_where_a_file_has_problems(queried: Queried) -> None:
    tick(queried.files[0])
    with person(queried.files[0], "answers") as frame:
        frame.loc[1, "assigned_class"] = 8
    before = {path: path.read_bytes() for path in queried.path.rglob("*") if path.is_file()}
    with pytest.raises(ReviewError, match="is not a class id"):
        ingest(queried.path, queried.files)
    assert {p: p.read_bytes() for p in queried.path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("grids", [("utm",), ("utm", "utm33"), ("grid", "turned")])
def test_export_covers_each_valid_pixel_once(
    make_queried: Callable[..., Queried], tmp_path: Path, grids: tuple[str, ...]
) -> None:
    queried = make_queried(grids)
    summary = export(queried.path, tmp_path / "map.gpkg", sieve_px=0)
    assert summary.written
    names = {"utm": "pseudo_labels", "utm33": "pseudo_labels", "turned": "pseudo_labels"}
    for name in grids:
        layer = names.get(name, f"pseudo_labels_{name}")
        frame = geopandas.read_file(summary.out, layer=layer)
        frame = frame[frame.scene_id == name]
        crs, transform = GRIDS[name]
        if crs is not None:
            frame = frame.to_crs(crs.to_wkt())
        transform = transform.scale(1, -1) if transform.is_identity else transform
        found, counts = np.full((SIDE, SIDE), 255), np.zeros((SIDE, SIDE), int)
        for geometry, class_id in zip(frame.geometry, frame.class_id, strict=True):
            inside = geometry_mask([geometry], (SIDE, SIDE), transform, invert=True)
            found[inside] = class_id
            counts += inside
        maps = queried.maps[name]
        valid = maps.state != 0
        assert np.array_equal(counts, valid.astype(int))
        assert np.array_equal(found, np.where(valid, maps.refined, 255))
        assert set(frame.source) <= {"teacher", "confirmed", "corrected", "label", "undecided"}
        assert frame.confidence.between(0, 1).all()
        assert frame.area_m2.isna().all() == (crs is None)


def test_export_again_does_nothing_and_another_request_is_refused(
    queried: Queried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.gpkg"
    first = export(queried.path, out)
    again = export(queried.path, out)
    assert (again.written, again.polygons) == (False, first.polygons)
    said = geohsal("export", queried.path, "-o", out).stdout
    assert said == f"nothing to do: {out} is up to date ({first.polygons} polygons)\n"
    monkeypatch.setattr("geohsal.workflows.export.os.access", lambda *_: False)
    shut = tmp_path / "other.gpkg"
    with pytest.raises(DataError, match=rf"{shut}: cannot be written \(no .* folder {tmp_path}\)"):
        export(queried.path, shut)
    monkeypatch.undo()
    with pytest.raises(RequestError, match="exists and is of another request; give --overwrite"):
        export(queried.path, out, what="final")
    tick(queried.files[0])
    ingest(queried.path, queried.files)
    final = export(queried.path, out, what="final", overwrite=True)
    assert final.polygons < first.polygons
    frame = geopandas.read_file(out, layer="final_map")
    assert frame.area.sum() == pytest.approx(100 * (queried.maps["utm"].state != 0).sum())
    with pytest.raises(RequestError, match=r"map\.shp: must end in \.gpkg, \.parquet, \.fgb"):
        export(queried.path, tmp_path / "map.shp")


def test_export_simplifies_without_gaps(queried: Queried, tmp_path: Path) -> None:
    out = export(queried.path, tmp_path / "map.parquet", simplify_px=1.5, sieve_px=6).out
    frame = geopandas.read_parquet(out)
    assert frame.crs.to_epsg() == 32632
    valid = 100 * (queried.maps["utm"].state != 0).sum()
    assert frame.area.sum() == pytest.approx(valid, rel=0.02)
    union = shapely.union_all(frame.geometry.values)
    assert union.area == pytest.approx(frame.area.sum())
    exact = geopandas.read_parquet(export(queried.path, tmp_path / "exact.parquet", sieve_px=6).out)
    assert shapely.get_num_coordinates(frame.geometry.values).sum() < (
        shapely.get_num_coordinates(exact.geometry.values).sum()
    )
    assert export(queried.path, tmp_path / "map.fgb").written


def test_a_damaged_scene_is_left_out_and_named(
    make_queried: Callable[..., Queried], tmp_path: Path
) -> None:
    queried = make_queried(("utm", "turned"))
    queried.run.round(0).raster("turned", "state").write_bytes(b"II*\0")
    with pytest.raises(PartialError, match="1 of 2 scenes failed and are not in it") as caught:
        export(queried.path, tmp_path / "map.gpkg")
    assert list(caught.value.failures) == ["turned"]
    frame = geopandas.read_file(tmp_path / "map.gpkg", layer="pseudo_labels")
    assert set(frame.scene_id) == {"utm"}


def test_export_needs_a_queried_round(queried: Queried, tmp_path: Path) -> None:
    queried.run.round(0).query_json.unlink()
    with pytest.raises(RunError, match="no round has been queried; run geohsal query first"):
        export(queried.path, tmp_path / "map.gpkg")
