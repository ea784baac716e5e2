"""Which files a round has: one per package, and one per scene without a position on Earth."""

from pathlib import Path

from review_factory import make_asked

from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.run import Round
from geohsal.workflows.review_files import not_handed_in, review_files


def round_of(tmp_path: Path) -> tuple[Round, list[QueryRegion], dict[str, Scene]]:
    earth = make_asked(tmp_path / "earth")
    local = make_asked(tmp_path / "local", ["grid"])
    scenes = {**earth.scenes, **local.scenes}
    return Round(index=0, run_dir=tmp_path), earth.regions + local.regions, scenes


def test_files_are_named_by_scene_and_package(tmp_path: Path) -> None:
    round_, regions, scenes = round_of(tmp_path)
    names = [region.region_id for region in regions]
    whole = review_files(round_, regions, scenes)
    assert [file.path.name for file in whole] == ["queries_r000.gpkg", "queries_r000_grid.gpkg"]
    shared = review_files(round_, regions, scenes, [names[:2], names[1:]])
    assert [(file.path.name, file.package, len(file.regions)) for file in shared] == [
        ("queries_r000_p1.gpkg", 1, 2),
        ("queries_r000_p2.gpkg", 2, 2),
        ("queries_r000_grid_p2.gpkg", 2, 3),
    ]


def test_a_file_is_known_by_its_package_else_by_its_regions(tmp_path: Path) -> None:
    round_, regions, scenes = round_of(tmp_path)
    names = [region.region_id for region in regions]
    files = review_files(round_, regions, scenes, [names[:2], names[1:]])

    def missing(*given: tuple[int | None, list[str]]) -> list[str]:
        found = not_handed_in(files, [(package, frozenset(ids)) for package, ids in given])
        return [file.path.name for file in found]

    assert missing((1, names[:2]), (2, names[1:3]), (2, names[3:])) == []
    assert missing((None, names[1:3]), (None, names[3:4])) == ["queries_r000_p1.gpkg"]
    assert missing((1, names[:1])) == ["queries_r000_p2.gpkg", "queries_r000_grid_p2.gpkg"]
    both = review_files(round_, regions[:3], scenes, [names[:3], names[:3]])
    same = (None, frozenset(names[:3]))
    assert [file.package for file in not_handed_in(both, [same])] == [2]
    assert not_handed_in(both, [same, same]) == []
