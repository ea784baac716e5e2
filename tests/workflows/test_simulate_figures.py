"""Rows become figures and pictures; cells drawn by lot become labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from matplotlib.colors import to_hex
from tiny_run import TINY_SETTINGS

from geohsal.config import load_config
from geohsal.errors import BudgetError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.manifest import load_manifest
from geohsal.workflows.context import open_context
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.simulate_picture import PALETTE, draw_curves
from geohsal.workflows.simulate_rows import Row, read_rows, write_row, write_tables
from geohsal.workflows.simulate_seed import full_manifest, initial_spent, seed_manifest
from geohsal.workflows.simulate_summary import summary_lines, summary_of, write_summary
from geohsal.workflows.tile import tile


def row(method: str, strategy: str, seed: int, index: int, *, share: float, miou: float) -> Row:
    return Row(
        dataset="town",
        method=method,
        strategy=strategy,
        seed=seed,
        round=index,
        spent_pixels=round(share * 1000),
        spent_share=share,
        labelled_pixels=10 + round(share * 1000),
        spent_ha=None,
        spent_min=100 * share,
        regions=index,
        oa=miou + 0.1,
        miou=miou,
        macro_f1=miou,
        kappa=miou,
        iou={"water": miou, "rare": None},
        train_seconds=1.0,
        commit="abc",
        machine="m",
    )


def rows() -> list[Row]:
    found = []
    for seed, lift in ((0, 0.0), (1, 0.1)):
        found.append(row("full", "all", seed, 0, share=1.0, miou=0.5 + lift))
        for index, (share, ours, random) in enumerate([(0, 0.2, 0.2), (0.02, 0.5, 0.3)]):
            found.append(row("geohsal", "plar", seed, index, share=share, miou=ours + lift))
            found.append(row("geohsal", "random", seed, index, share=share, miou=random + lift))
    return found


def test_figures_by_hand() -> None:
    summary = summary_of(rows(), rounds=2, seeds=[0, 1])
    assert summary.full is not None
    assert summary.full.mean == pytest.approx(0.55)
    ours, random = summary.figures
    assert (ours.method, ours.strategy, ours.seeds, ours.rounds) == ("geohsal", "plar", (0, 1), 2)
    # seed 0: (0.2 + 0.5) / 2, seed 1: 0.1 more
    assert (ours.aubc.mean, ours.aubc.std) == (pytest.approx(0.4), pytest.approx(0.05 * 2**0.5))
    assert ours.over_random is not None
    assert ours.over_random.difference == pytest.approx(0.1)
    assert ours.over_random.pooled_std == pytest.approx(0.05 * 2**0.5)
    assert random.over_random is None
    # 90 %: seed 0 needs 0.45 (5/6 of the way), seed 1 needs 0.54 of 0.3..0.6 (4/5): of 0.02 each
    at_90, at_95, _ = ours.needed
    assert at_90.share == pytest.approx(0.02 * (5 / 6 + 4 / 5) / 2)
    assert (at_95.part, at_95.reached, at_95.seeds) == (0.95, 2, 2)
    assert [(item.share, item.reached) for item in random.needed] == [(None, 0)] * 3


def test_the_table_says_what_is_not_reached_and_by_how_many_seeds(tmp_path: Path) -> None:
    found = rows()
    found[0] = row("full", "all", 0, 0, share=1.0, miou=0.7)
    write_summary(summary_of(found, rounds=2, seeds=[0, 1]), tmp_path)
    lines = (tmp_path / "summary.md").read_text().splitlines()
    ours = next(line for line in lines if line.startswith("| geohsal | plar"))
    assert "0.4000 ± 0.0707 | +0.1000 (sd 0.0707)" in ours
    assert ours.count("not reached (1 of 2)") == 3
    assert json.loads((tmp_path / "summary.json").read_text())["figures"][0]["seeds"] == [0, 1]
    without = [item for item in found if item.method != "full"]
    summary = summary_of(without, rounds=2, seeds=[0, 1])
    assert "share for" not in "\n".join(summary_lines(summary))


def test_a_seed_counts_once_its_rounds_are_there_and_is_compared_with_itself() -> None:
    missing = [("plar", 1, 1), ("random", 0, 1)]  # plar has seed 0 whole, random seed 1
    found = [item for item in rows() if (item.strategy, item.seed, item.round) not in missing]
    ours, random = summary_of(found, rounds=2, seeds=[0, 1, 2]).figures
    assert (ours.seeds, ours.wanted, random.seeds) == ((0,), 3, (1,))
    assert ours.aubc.mean == pytest.approx(0.35)
    assert ours.last_miou.mean == pytest.approx(0.5)
    assert ours.over_random is None, "no seed has both"
    later = [item for item in rows() if (item.strategy, item.seed, item.round) != missing[1]]
    summary = summary_of([*later, row("fixmatch", "random", 0, 0, share=0, miou=0.9)],
                         rounds=2, seeds=[0, 1])  # fmt: skip
    ours = summary.figures[0]
    assert ours.over_random is not None
    assert ours.over_random.difference == pytest.approx(0.1), "of seed 1 alone"
    assert summary.unfinished == ("fixmatch/random",)
    lines = list(summary_lines(summary))
    assert lines[-1] == "No seed is finished yet: fixmatch/random."
    assert any("| geohsal | random | 1 of 2 |" in line for line in lines)


def test_rows_survive_the_disk_and_classes_keep_their_order(tmp_path: Path) -> None:
    for number, item in enumerate(rows()):
        write_row(tmp_path / f"{number}.json", item)
    found = read_rows(tmp_path)
    assert found == sorted(rows(), key=lambda item: item.place)
    write_tables(found, tmp_path / "r.csv", tmp_path / "r.parquet")
    head = (tmp_path / "r.csv").read_text().splitlines()[0]
    assert ",iou_water,iou_rare,train_seconds,commit,machine" in head


def test_curves_show_what_there_is(tmp_path: Path) -> None:
    found = [*rows(), row("forest", "plar", 0, 0, share=0, miou=0.1)]
    png, svg, classes = draw_curves(found, tmp_path)
    assert (png.name, classes.name) == ("curves.png", "curves_classes.png")
    text = svg.read_text()
    assert "area asked about (ha)" not in text, "no scene has a position on Earth"
    for words in ("geohsal, plar" if "geohsal, plar" in text else "plar", "all train pixels",
                  "forest on plar", "labels asked for (% of train pixels)"):  # fmt: skip
        assert words in text
    assert to_hex(PALETTE[0]) in text
    assert "stroke-dasharray" in text
    assert draw_curves([], tmp_path / "none") == ()


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic landscape with settings beside it."""
    folder = tmp_path_factory.mktemp("landscape")
    (folder / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
    return write_landscape(folder, shape=(192, 224))


def test_cells_drawn_by_lot_are_labels_within_the_budget(landscape: Path, tmp_path: Path) -> None:
    config = load_config(landscape.parent / "settings.yaml", overrides=["query.region_px=16"])
    manifest = load_manifest(landscape)
    options = {"seed": 5, "config": config, "initial": "2%"}
    path = seed_manifest(manifest, tmp_path / "a", **options)  # type: ignore[arg-type]
    spent = initial_spent(tmp_path / "a")
    tile(path, tmp_path / "run", config=config)
    context = open_context(tmp_path / "run")
    pool = context.record.train_valid_pixels
    labelled = sum(share.pixels for share in context.record.classes)
    assert 0.015 * pool < labelled == spent.pixels <= 0.02 * pool
    assert spent.area_m2 == pytest.approx(4 * spent.pixels, rel=0.01)
    assert spent.regions * 20 < spent.seconds < spent.regions * (20 + 6 * 5)
    name, source = next((s.scene_id, s.labels) for s in load_manifest(path).scenes if s.labels)
    truth = manifest.scene(name).truth
    assert source is not None
    assert truth is not None
    with rasterio.open(source.path) as drawn, rasterio.open(truth.path) as full:
        found, known = drawn.read(1), full.read(1)
    assert np.array_equal(found[found != IGNORE_INDEX], known[found != IGNORE_INDEX])
    again = seed_manifest(manifest, tmp_path / "b", **options)  # type: ignore[arg-type]
    assert again.read_text() == path.read_text().replace(str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(BudgetError, match="buys no cell to begin with"):
        seed_manifest(manifest, tmp_path / "c", seed=5, config=config, initial="3px")


def test_each_seed_has_its_own_blocks_and_all_labels_are_the_truth(
    landscape: Path, tmp_path: Path
) -> None:
    manifest = load_manifest(landscape)
    path = full_manifest(manifest, tmp_path, seed=7)
    found = load_manifest(path)
    assert found.blocks.seed == 7
    assert found.scene("west_2").labels == manifest.scene("west_2").truth
    assert found.scene("east_2").labels is None, "it is for testing"
