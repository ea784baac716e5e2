"""Which review files a round has, and which of their regions somebody handed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.geopackage import file_groups
from geohsal.io.run import Round


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFile:
    """One file for one reviewer; `package` counts from 1, None where nothing is shared out."""

    path: Path
    package: int | None
    regions: tuple[QueryRegion, ...]


def review_files(
    round_: Round,
    regions: Sequence[QueryRegion],
    scenes: Mapping[str, Scene],
    packages: Sequence[Sequence[str]] = (),
) -> list[ReviewFile]:
    """The files of a round: per package one, and one per scene without a position on Earth.

    Args:
        round_: the round.
        regions: what it asks.
        scenes: by scene id.
        packages: region ids of each package; none where nothing is shared out.
    """
    shares: list[tuple[int | None, Sequence[QueryRegion]]] = [(None, regions)]
    if packages:
        by_id = {region.region_id: region for region in regions}
        shares = [
            (number, [by_id[name] for name in names])
            for number, names in enumerate(packages, start=1)
        ]
    files = []
    for package, own in shares:
        used = [scenes[name] for name in sorted({region.scene_id for region in own})]
        for local, group in file_groups(used):
            ids = {scene.scene_id for scene in group}
            files.append(
                ReviewFile(
                    path=round_.queries(local, package),
                    package=package,
                    regions=tuple(region for region in own if region.scene_id in ids),
                )
            )
    return files


def not_handed_in(
    files: Sequence[ReviewFile], given: Sequence[tuple[int | None, frozenset[str]]]
) -> list[ReviewFile]:
    """Files of which no review was given.

    Args:
        files: all of the round.
        given: per review its package, where it says so, and the regions it has rows for.
    """
    taken: set[int] = set()
    for package, ids in given:
        if ids:
            taken.add(max(range(len(files)), key=lambda n: _fit(files[n], n, package, ids, taken)))
    return [file for number, file in enumerate(files) if number not in taken]


def _fit(
    file: ReviewFile, number: int, package: int | None, ids: frozenset[str], taken: set[int]
) -> tuple[bool, float, bool]:
    """How well a review fits a file: same package, same regions, not yet handed in."""
    own = {region.region_id for region in file.regions}
    common = len(own & ids) / len(own | ids)
    return package is not None and file.package == package, common, number not in taken
