"""From a queried round over answers to its diagnostics, and back when they are taken back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from matplotlib.image import imread
from tiny_run import geohsal

from geohsal.errors import LabelError, RunError
from geohsal.geo.patches import slices
from geohsal.io.atomic import read_json
from geohsal.io.label_store import read_label_raster
from geohsal.io.manifest import load_manifest
from geohsal.io.round_record import read_regions
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.refine.diagnosis import JudgedPixels, count_pixels, diagnosis, no_counts
from geohsal.workflows import diagnose_read
from geohsal.workflows.diagnose import FREE_STATES, RoundDiagnostics, diagnose, diagnosis_row
from geohsal.workflows.diagnose_lines import diagnosis_lines, short_lines
from geohsal.workflows.diagnose_plot import NEUTRAL, RIGHT, WRONG, draw_diagnostics
from geohsal.workflows.diagnose_read import changed_share, split_tables
from geohsal.workflows.ingest import ingest

NAMES = [state.name for state in FREE_STATES]


def turn(run: Run) -> str:
    """Query, let the oracle answer, take the answers in; what ingest says."""
    round_ = run.current
    geohsal("query", run.path, "--budget", "20regions")
    reviewed = run.path.parent / f"reviewed_{round_.index}.gpkg"
    geohsal("answer", run.path, round_.queries(), "-o", reviewed)
    return geohsal("ingest", run.path, reviewed).stdout


@pytest.fixture(scope="module")
def first(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run with one answered round, and what the ingest said."""
    folder = tmp_path_factory.mktemp("diagnosed")
    shutil.copytree(trained.path, folder / "run")
    run = open_run(folder / "run")
    return run, turn(run)


@pytest.fixture
def own(first: tuple[Run, str], tmp_path: Path) -> Run:
    """A copy to change."""
    shutil.copytree(first[0].path.parent, tmp_path / "own")
    return open_run(tmp_path / "own" / "run")


def bands(round_: Round, scene_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refined classes, the teacher's, and states."""
    with rasterio.open(round_.raster(scene_id, "class")) as source:
        refined, teacher = source.read()
    with rasterio.open(round_.raster(scene_id, "state")) as source:
        return refined, teacher, source.read(1)


def test_an_ingest_leaves_what_the_rasters_and_labels_say(first: tuple[Run, str]) -> None:
    run, said = first
    round_ = run.round(0)
    record = read_json(round_.dir / "diagnostics.json")
    pixels, wrong, flips = {True: 0, False: 0}, {True: 0, False: 0}, np.zeros(3, int)
    for region in read_regions(round_.regions):
        area = slices(region.cell)
        refined, teacher, state = (band[area] for band in bands(round_, region.scene_id))
        labels = read_label_raster(run.labels(region.scene_id))
        known = labels.rounds[area] == 0
        label = labels.classes[area]
        pixels[region.audit] += int(known.sum())
        wrong[region.audit] += int((known & (teacher != label)).sum())
        flip = known & (state == 4)
        flips += [
            (flip & (refined == label)).sum(),
            (flip & (teacher == label)).sum(),
            (flip & (refined != label) & (teacher != label)).sum(),
        ]
    assert record["format_version"] == 1
    assert pixels[True] > 0
    for name, audit in (("chosen", False), ("audit", True)):
        found = record[name]["teacher"]
        assert record[name]["pixels"] == found["pixels"] == pixels[audit]
        assert found["hits"] == pixels[audit] - wrong[audit]
        assert found["low"] < found["share"] < found["high"] or found["share"] in (0, 1)
    plar = record["judged"]["plar"]
    assert [sum(plar[name]) for name in ("right", "wrong", "neutral")] == flips.tolist()
    assert record["judged"]["regions"] == len(read_regions(round_.regions))
    assert record["states"] == read_json(round_.query_json)["summary"]["states"]
    assert record["changed_share"] is None  # there is no round before
    assert isinstance(record["abstaining"], dict)
    assert record["guards"] == read_json(round_.metrics)["guards"]
    total = sum(pixels.values())
    assert f"of {total:,} answered px the teacher was wrong on" in said
    assert f"{100 * wrong[True] / pixels[True]:.1f} %" in said
    corrected, right = int(flips.sum()), int(flips[0])
    assert f"PLAR corrected {corrected:,} of them" in said
    assert corrected == 0 or f": {right:,} right, {flips[1]:,} wrong" in said
    assert "advice: cannot tell yet whether another round is worth it: 0 of 2 changes" in said


def test_truth_judges_the_whole_pool_and_gives_a_row(own: Run) -> None:
    found = diagnose(own.path, reference="truth")
    pool = wrong = 0
    truths = diagnose_read.read_truths(own, load_manifest(own.manifest))
    for scene_id, truth in truths.items():
        _, teacher, state = bands(own.round(0), scene_id)
        whole = load_scenes(own)[scene_id].extent
        free = (state > 1) & (split_tables(own)[scene_id].read(whole) == 1) & (truth != 255)
        pool += int(free.sum())
        wrong += int((free & (teacher != truth)).sum())
    assert found.judged.pixels == pool
    row = diagnosis_row(found)
    assert row["pool_error_rate"] == pytest.approx(wrong / pool)
    assert row["plar_corrected"] == row["plar_right"] + row["plar_wrong"] + row["plar_neutral"]
    shares = [row[f"state_{name}"] for name in ("trusted", "confirmed", "corrected")]
    shares += [row["state_ambiguous"], row["state_novel"]]
    assert sum(share or 0 for share in shares) == pytest.approx(1)
    by_answers = diagnose(own.path)
    assert row["hit_rate"] == diagnosis_row(by_answers)["hit_rate"]  # the oracle is perfect
    assert diagnosis_row(by_answers)["pool_error_rate"] is None
    assert (own.round(0).dir / "diagnostics_truth.json").exists()


def test_stripes_and_cells_do_not_change_the_pool(own: Run, monkeypatch) -> None:
    whole = diagnose(own.path, reference="truth")
    monkeypatch.setattr(diagnose_read, "STRIPE_ROWS", 40)
    assert diagnose(own.path, reference="truth") == whole


def test_undo_removes_it(own: Run) -> None:
    record = own.round(0).dir / "diagnostics.json"
    geohsal("status", own.path, "--diagnostics")
    assert record.exists()
    assert record.with_suffix(".png").exists()
    ingest(own.path, undo=True, dry_run=True)
    assert record.exists()
    ingest(own.path, undo=True)
    assert not record.exists()
    assert not record.with_suffix(".png").exists()


def test_an_ingest_killed_before_it_is_completed_by_the_same_command(own: Run) -> None:
    record = own.round(0).dir / "diagnostics.json"
    before = record.read_bytes()
    record.unlink()
    files = [own.path.parent / "reviewed_0.gpkg"]
    assert ingest(own.path, files, dry_run=True).action == "nothing"
    assert not record.exists()
    assert ingest(own.path, files).action == "nothing"
    assert record.read_bytes() == before


def test_an_ingest_without_rasters_warns_and_goes_on(own: Run, caplog) -> None:
    ingest(own.path, undo=True)
    shutil.rmtree(own.round(0).rasters)
    summary = ingest(own.path, [own.path.parent / "reviewed_0.gpkg"])
    assert summary.action == "ingested"
    assert summary.diagnostics == ()
    assert "round 0 has no diagnostics" in caplog.text
    assert "bring the rasters of round 0 back" in caplog.text
    assert not (own.round(0).dir / "diagnostics.json").exists()
    geohsal("status", own.path)
    geohsal("status", own.path, "--diagnostics", code=3)


def test_what_cannot_be_measured_is_refused(own: Run, trained: Run) -> None:
    with pytest.raises(RunError, match="round 0 is not queried, it has no maps to judge"):
        diagnose(trained.path)
    with pytest.raises(RunError, match="round 1 is not queried"):
        diagnose(own.path, round_index=1, reference="truth")
    ingest(own.path, undo=True)
    assert diagnose(own.path, reference="truth").round == 0
    with pytest.raises(RunError, match="round 0 has no answers yet; ingest its review first"):
        diagnose(own.path)
    content = yaml.safe_load(own.manifest.read_text("utf-8"))
    for scene in content["scenes"]:
        scene.pop("truth", None)
    own.manifest.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(LabelError, match="no scene has truth; give `truth:` in the manifest"):
        diagnose(own.path, reference="truth")


def test_status_prints_the_table_and_draws_it(own: Run) -> None:
    said = geohsal("status", own.path, "--diagnostics", "--round", "0").stdout
    for words in ("round 0 against answers", "random audit", "error mask", "net gain", "novel"):
        assert words in said
    picture = imread(own.round(0).dir / "diagnostics.png")
    assert picture.shape[:2] == (950, 1300)
    values = json.loads(geohsal("status", own.path, "--diagnostics", "--json").stdout)
    assert values["judged"]["pixels"] == sum(values[name]["pixels"] for name in ("chosen", "audit"))
    advice = json.loads(geohsal("status", own.path, "--json").stdout)["advice"]
    assert advice["verdict"] == "cannot tell"
    assert (
        "--round and --reference go with"
        in geohsal("status", own.path, "--round", 0, code=2).output
    )


def test_the_second_round_knows_how_much_of_the_map_changed(own: Run, monkeypatch) -> None:
    assert "advice: cannot tell yet" in geohsal("train", own.path).stdout
    said = turn(own)
    changed = pool = 0
    for scene_id, table in split_tables(own).items():
        _, before, _ = bands(own.round(0), scene_id)
        _, after, state = bands(own.round(1), scene_id)
        train = table.read(load_scenes(own)[scene_id].extent) == 1
        free = (state > 1) & train
        pool += int(free.sum())
        changed += int((free & (before != after)).sum())
    saved = shutil.copytree(own.round(0).rasters, own.path.parent / "saved")
    share = read_json(own.round(1).dir / "diagnostics.json")["changed_share"]
    assert share == pytest.approx(changed / pool)
    assert share > 0.005
    assert f"advice: another round is worth it: a round still changed {100 * share:.1f} %" in said
    assert f"still changed {100 * share:.1f} %" in geohsal("status", own.path).stdout
    late = min(split_tables(own))  # as if this scene had been added after round 0
    for path in own.round(0).rasters.glob(f"{late}*"):
        path.unlink()
    rest = changed_share(own, own.round(1), seed=0)
    assert rest is not None
    assert rest != share
    truths = diagnose_read.read_truths(own, load_manifest(own.manifest))
    pools = [
        diagnose_read.count_pool(own, round_, truths, num_classes=5, region_px=16)
        for round_ in (own.round(0), own.round(1))
    ]
    assert 0 < diagnosis(pools[0]).pixels < diagnosis(pools[1]).pixels
    shutil.copytree(saved, own.round(0).rasters, dirs_exist_ok=True)
    monkeypatch.setattr(diagnose_read, "BLOCK_PX", 32)
    assert changed_share(own, own.round(1), seed=0) == pytest.approx(share, abs=0.1)
    monkeypatch.setattr(diagnose_read, "MOST_BLOCKS", 10_000)
    assert changed_share(own, own.round(1), seed=0) == pytest.approx(share)


def drawn(found: RoundDiagnostics, path: Path) -> set[tuple[int, ...]]:
    """The colours of a picture."""
    draw_diagnostics(found, path)
    pixels = np.rint(imread(path) * 255).astype(np.uint8)
    return {tuple(colour) for colour in np.unique(pixels[..., :3].reshape(-1, 3), axis=0).tolist()}


def test_the_picture_shows_flips_and_stands_without_evidence(own: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 4000
    reference, teacher, refined = rng.integers(0, 6, (3, count)).astype(np.uint8)
    pixels = JudgedPixels(
        teacher=np.where(rng.random(count) < 0.7, reference, teacher),
        refined=np.where(rng.random(count) < 0.8, reference, refined),
        state=rng.integers(2, 7, count).astype(np.uint8),
        confidence=rng.random(count).astype(np.float32),
        error=rng.random(count).astype(np.float32),
        reference=reference,
        region=rng.integers(0, 30, count),
    )
    some = diagnosis(count_pixels(pixels, num_classes=6))
    nothing = diagnosis(no_counts(6))
    found = diagnose(own.path)
    full = replace(found, judged=some, chosen=some, audit=some, states=dict.fromkeys(NAMES, 5))
    flips = {tuple(bytes.fromhex(colour[1:])) for colour in (RIGHT, WRONG, NEUTRAL)}
    assert flips <= drawn(full, tmp_path / "full.png")
    empty = replace(found, judged=nothing, chosen=nothing, audit=nothing, states={})
    flips.discard(tuple(bytes.fromhex(NEUTRAL[1:])))  # a grey that letters have at their edges
    assert not flips & drawn(empty, tmp_path / "empty.png")
    assert "  teacher right                             -" in "\n".join(diagnosis_lines(empty))
    some_flips = full.judged.plar
    assert short_lines(full)[1] == (
        f"PLAR corrected {sum(map(sum, (some_flips.right, some_flips.wrong, some_flips.neutral)))} "
        f"of them: {sum(some_flips.right)} right, {sum(some_flips.wrong)} wrong, "
        f"{sum(some_flips.neutral)} neutral; confirmed {some_flips.confirmed.pixels}: "
        f"{some_flips.confirmed.hits} right"
    )
    assert short_lines(empty) == ("no answered pixel got a class",)
    assert set(diagnosis_row(empty)) == set(diagnosis_row(full))
