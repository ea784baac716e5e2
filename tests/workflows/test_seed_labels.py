"""First labels: parts of the truth, as much as was asked for, in every class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geohsal.config import load_config
from geohsal.data.seed_cells import MIN_REGIONS, count_cells, draw_cells, in_cells
from geohsal.errors import RequestError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.manifest import load_manifest
from geohsal.workflows.seed_labels import SeedRequest, write_seed_labels
from geohsal.workflows.tile import tile

SIDE, CELL = 128, 8
RARE = (64, 72)
"""Rows and columns of the only square of class 2 in each scene."""


def truth() -> NDArray[np.uint8]:
    """Water left, forest right, one building square; unknown below."""
    classes = np.zeros((SIDE, SIDE), dtype=np.uint8)
    classes[:, SIDE // 2 :] = 1
    classes[slice(*RARE), slice(*RARE)] = 2
    classes[-16:] = IGNORE_INDEX
    return classes


@pytest.fixture
def project(
    make_raster: Callable[..., Path], make_manifest: Callable[..., Path]
) -> Callable[..., Path]:
    """`project(count, **scene keys)` writes scenes with truth, the last one for testing."""

    def make(count: int = 4, **keys: Any) -> Path:
        scenes = []
        for number in range(count):
            image = np.random.default_rng(number).integers(1, 99, (3, SIDE, SIDE), dtype=np.uint8)
            image[:, :, :8] = 0
            entry: dict[str, Any] = {
                "id": f"s{number}",
                "image": make_raster(f"s{number}.tif", image, nodata=0),
                "truth": {"path": make_raster(f"t{number}.tif", truth()), "ignore": [255]},
            }
            scenes.append(entry | ({"split": "test"} if number == count - 1 else keys))
        path = make_manifest(scenes)
        path.write_text(f"# from a survey\n#\n{path.read_text()}")
        return path

    return make


def labels_of(manifest: Path, scene_id: str) -> NDArray[np.uint8]:
    import rasterio

    source = load_manifest(manifest).scene(scene_id).labels
    assert source is not None
    with rasterio.open(source.path) as raster:
        classes: NDArray[np.uint8] = raster.read(1)
    return classes


def seed(manifest: Path, **changes: Any) -> Any:
    asked: dict[str, Any] = {"share": 0.05, "region_px": CELL, "seed": 3}
    return write_seed_labels(manifest, manifest.with_name("seeded.yaml"), **(asked | changes))


def test_labels_are_whole_cells_of_the_truth(project: Callable[..., Path]) -> None:
    summary = seed(project())
    labels = labels_of(summary.manifest, "s1")
    known = labels != IGNORE_INDEX
    assert known.any()
    np.testing.assert_array_equal(labels[known], truth()[known])
    cells = known.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3))
    assert set(np.unique(cells)) == {0.0, 1.0}
    assert not known[:, :8].any(), "nodata is not labelled"


def test_about_the_share_is_spent_in_every_scene_and_counted(project: Callable[..., Path]) -> None:
    summary = seed(project(), share=0.2)
    labelled = {name: int((labels_of(summary.manifest, name) != IGNORE_INDEX).sum())
                for name in ("s0", "s1", "s2")}  # fmt: skip
    assert sum(labelled.values()) == summary.pixels == summary.cells * CELL**2
    assert summary.pool == 3 * SIDE * (SIDE - 8)
    assert 0.19 < summary.share <= 0.2 + MIN_REGIONS * CELL**2 / summary.pool
    assert max(labelled.values()) - min(labelled.values()) <= 2 * CELL**2


def test_every_class_gets_three_regions_even_where_one_cell_in_a_scene_holds_it(
    project: Callable[..., Path],
) -> None:
    summary = seed(project(), share=0.02)
    assert summary.regions["building"] == 3
    assert summary.scarce == ()
    assert summary.share <= 0.04


def test_the_search_for_scarce_classes_ends_at_twice_the_share(
    project: Callable[..., Path],
) -> None:
    one = CELL**2 / (2 * SIDE * (SIDE - 8))
    summary = seed(project(3), share=one)
    assert summary.cells == 2
    assert "building" in summary.scarce


def test_the_rest_of_the_manifest_stays(project: Callable[..., Path]) -> None:
    manifest = project()
    old, new = load_manifest(manifest), load_manifest(seed(manifest).manifest)
    assert new.scene("s3") == old.scene("s3")
    assert new.scene("s0").truth == old.scene("s0").truth
    assert (new.classes, new.bands, new.name) == (old.classes, old.bands, old.name)
    text = new.path.read_text()
    assert text.startswith("# from a survey\n#\n# first labels: 5 % of the valid train pixels")
    assert "path: seeded_labels/s0.tif" in text


def test_a_run_counts_the_same_labels(project: Callable[..., Path], tmp_path: Path) -> None:
    summary = seed(project())
    config = load_config("cpu-small", overrides=[f"query.region_px={CELL}"])
    record = tile(summary.manifest, tmp_path / "run", config=config).record
    assert sum(info.pixels for info in record.classes) == summary.pixels
    assert {info.name: info.regions for info in record.classes} == summary.regions
    assert record.train_valid_pixels == summary.pool


def test_blocks_are_seeded_in_their_train_part(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    summary = seed(project(3, split="blocks"), share=0.3)
    config = load_config("cpu-small", overrides=[f"query.region_px={CELL}"])
    record = tile(summary.manifest, tmp_path / "run", config=config).record
    assert sum(info.pixels for info in record.classes) == summary.pixels
    assert all(scene.dropped_labels == 0 for scene in record.scenes.values())


def test_seeds_draw_differently_and_the_same_seed_the_same(project: Callable[..., Path]) -> None:
    manifest = project()
    first = labels_of(seed(manifest).manifest, "s0")
    again = labels_of(seed(manifest, seed=4, overwrite=True).manifest, "s0")
    assert (first != again).any()
    back = labels_of(seed(manifest, overwrite=True).manifest, "s0")
    np.testing.assert_array_equal(first, back)


def test_the_same_again_reads_no_scene(project: Callable[..., Path], tmp_path: Path) -> None:
    manifest = project()
    first = seed(manifest)
    (tmp_path / "t0.tif").unlink()
    again = seed(manifest)
    assert (first.written, again.written) == (True, False)
    assert (again.pixels, again.regions, again.scarce) == (
        first.pixels, first.regions, first.scarce,
    )  # fmt: skip


def test_lost_labels_are_made_again(project: Callable[..., Path], tmp_path: Path) -> None:
    manifest = project()
    before = labels_of(seed(manifest).manifest, "s2")
    (tmp_path / "seeded_labels" / "s2.tif").unlink()
    assert seed(manifest).written
    np.testing.assert_array_equal(labels_of(tmp_path / "seeded.yaml", "s2"), before)


def test_another_request_needs_overwrite(project: Callable[..., Path]) -> None:
    manifest = project()
    seed(manifest)
    with pytest.raises(RequestError, match=r"seeded\.yaml: exists and is of another request"):
        seed(manifest, share=0.06)


def test_labels_that_are_replaced_are_named(project: Callable[..., Path]) -> None:
    manifest = project()
    seed(manifest)
    again = write_seed_labels(
        manifest.with_name("seeded.yaml"), manifest.with_name("b.yaml"), share=0.1, region_px=CELL
    )
    assert again.replaced == ("s0", "s1", "s2")


def test_requests_that_make_no_sense_are_one_line(
    project: Callable[..., Path], make_manifest: Callable[..., Path]
) -> None:
    manifest = project()
    with pytest.raises(RequestError, match="is the manifest itself"):
        write_seed_labels(manifest, manifest, share=0.1)
    with pytest.raises(RequestError, match="buy no region of 8 x 8"):
        seed(manifest, share=1e-6)
    with pytest.raises(RequestError, match="must be above 0 % and at most 100 %"):
        SeedRequest(share=1.5)
    with pytest.raises(RequestError, match="no train scene has truth"):
        seed(make_manifest([{"id": "bare", "image": "bare.tif"}], filename="bare.yaml"))


def test_cells_at_the_edge_count_their_own_pixels() -> None:
    classes = np.full((10, 13), 1, dtype=np.uint8)
    classes[0, 0] = IGNORE_INDEX
    cells = count_cells("s", classes, pool=130, region_px=8, num_classes=2)
    np.testing.assert_array_equal(cells.known, [63, 40, 16, 10])
    np.testing.assert_array_equal(cells.present, [[False, True]] * 4)
    inside = in_cells((10, 13), np.array([1]), region_px=8)
    assert inside.sum() == 40
    assert inside[:8, 8:].all()


def test_every_scene_gives_its_share() -> None:
    scenes = [
        count_cells(
            f"s{number}", np.zeros((side, side), np.uint8), pool=side**2, region_px=8, num_classes=1
        )
        for number, side in enumerate((80, 160, 320))
    ]
    draw = draw_cells(scenes, share=0.1, seed=0)
    assert [draw.cells[scene.scene_id].size for scene in scenes] == pytest.approx(
        [10, 40, 160], abs=1
    )
    assert draw.pixels <= 0.1 * sum(scene.pool for scene in scenes)


def test_a_draw_that_is_refused_leaves_the_old_manifest(project: Callable[..., Path]) -> None:
    manifest = project()
    before = seed(manifest).manifest.read_bytes()
    with pytest.raises(RequestError, match="buy no region"):
        seed(manifest, share=1e-6, overwrite=True)
    assert manifest.with_name("seeded.yaml").read_bytes() == before
