"""Which run, round and query a reviewed file is of, and what was asked there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geohsal.errors import ReviewError
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.gpkg_read import content_hash, read_provenance
from geohsal.io.review_source import Source, settled
from geohsal.io.round_record import Answer, fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked: the record that reviewed files are held against.

    `request` is not compared where None; `run` is the manifest's name, for messages. `packages`
    holds the region ids of each package where the round is shared out; else it is empty.
    """

    index: int
    request: str | None
    regions: Mapping[str, QueryRegion]
    answers: Mapping[str, Answer]
    scenes: Mapping[str, Scene]
    num_classes: int
    run: str | None = None
    packages: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a file says of itself; `content` names what it holds. None: it does not say.

    `conflicts` names the differences that a conflicts file lists.
    """

    name: str
    round: int | None
    run: str | None
    content: str
    conflicts: str | None = None


def read_origin(source: Source) -> Origin:
    """Where a reviewed file says it comes from.

    Raises:
        ReviewError: it is no review file.
    """
    with settled(source) as copy:
        record = read_provenance(copy) or {}
        content = content_hash(copy, where=source.path)
    index, run = record.get("round"), record.get("run")
    return Origin(
        name=source.name,
        round=index if isinstance(index, int) else None,
        run=run if isinstance(run, str) else None,
        content=content,
    )


def foreign(found: str | None, run: str | None) -> str:
    """Words for a file that says it is of another run; empty where it does not."""
    if run is None or found in (None, run):
        return ""
    return f"belongs to run {found!r}, not to {run!r}; give a file of this run"


def check_origin(path: Path, record: Mapping[str, Any], asked: Asked) -> None:
    """Hold a file's own record against what was asked; the run's name may have changed since.

    Raises:
        ReviewError: it is of another run, round or query.
    """
    found, request = record.get("round"), record.get("request")
    other = foreign(record.get("run"), asked.run)
    if found != asked.index:
        raise ReviewError(
            f"{path}: "
            + (
                other
                or f"belongs to round {found}, but round {asked.index} is the one under review; "
                "give the file of that round"
            )
        )
    stale = asked.request is not None and request not in (None, asked.request)
    if stale or record.get("fingerprint") != _fingerprint(record, asked):
        raise ReviewError(
            f"{path}: "
            + (
                other
                or "belongs to another run, or to a query that was made anew since; give the file "
                f"that was written for this round {asked.index}"
            )
        )


def _fingerprint(record: Mapping[str, Any], asked: Asked) -> str | None:
    """What the fingerprint of a file of these scenes and this package must be."""
    scenes, package = set(record.get("scenes", ())), record.get("package")
    own = {name for name, region in asked.regions.items() if region.scene_id in scenes}
    if package is not None:
        if not isinstance(package, int) or not 1 <= package <= len(asked.packages):
            return None
        own &= asked.packages[package - 1]
    return fingerprint(
        [asked.regions[name] for name in own],
        [answer for answer in asked.answers.values() if answer.region_id in own],
    )
