"""A manifest against the run it was tiled into before: what is added, what must not change."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from geohsal.config import TileConfig
from geohsal.errors import DataError, RunError
from geohsal.geo.scene import Tile
from geohsal.io.fingerprint import file_sha256
from geohsal.io.ledger import read_ledger
from geohsal.io.manifest import Manifest, SceneSource, load_manifest
from geohsal.io.raster import open_scene
from geohsal.io.run import Run
from geohsal.io.run_tables import (
    TileRecord,
    group_tiles,
    labels_digest,
    read_summary,
)
from geohsal.io.tile_index import read_tiles

_IMAGE_KEYS = ("image", "bands", "nodata", "mask", "aoi", "crs")
_WAY_OUT = "give another folder with -o, or --overwrite while no round was started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A run as `tile` left it; `whole` is False where a kill left an older index beside it."""

    run: Run
    manifest: Manifest
    record: TileRecord
    tiles: dict[str, list[Tile]]
    whole: bool


def read_before(run: Run) -> Before | None:
    """The finished run in a folder, or None."""
    if not (run.tiles.is_file() and run.summary.is_file()):
        return None
    record = read_summary(run)
    return Before(
        run=run,
        manifest=load_manifest(run.manifest),
        record=record,
        tiles=group_tiles(read_tiles(run.tiles)),
        whole=file_sha256(run.tiles) == record.tiles_sha256,
    )


def refuse_started(run: Run) -> None:
    """`--overwrite` may only replace a run on which nothing was built yet.

    Raises:
        RunError: a round was started, or the ledger has entries.
    """
    rounds = sorted(path.name for path in run.path.glob("round_*"))
    found = rounds[0] if rounds else "entries in the ledger" if read_ledger(run.ledger) else None
    if found:
        raise RunError(
            f"{run.path}: --overwrite would orphan what was built on these tiles ({found}); "
            "give another folder with -o"
        )


def refuse_other_request(manifest: Manifest, before: Before, *, tile: TileConfig) -> None:
    """Tile sizes, splits and scenes may not differ from the run's; added scenes are fine.

    Raises:
        RunError: naming what differs.
    """
    where = before.run.path
    for key in ("core_px", "overlap_px"):
        was, now = getattr(before.record, key), getattr(tile, key)
        if was != now:
            raise RunError(
                f"{where}: was tiled with tile.{key}: {was}, asked for now: {now}; "
                f"give the same, or {_WAY_OUT}"
            )
    sources = {source.scene_id: source for source in manifest.scenes}
    for scene_id in before.record.scenes:
        if scene_id not in sources:
            raise RunError(
                f"{where}: has a scene {scene_id!r} that is no longer in {manifest.path}; "
                f"put it back, or {_WAY_OUT}"
            )
        old, new = before.record.scenes[scene_id].split, sources[scene_id].split
        if old != new:
            raise RunError(
                f"{where}: scene {scene_id!r} was tiled with split {old}, the manifest says {new}; "
                f"{_WAY_OUT}"
            )
    blocked = any(record.split == "blocks" for record in before.record.scenes.values())
    if blocked and manifest.blocks != before.manifest.blocks:
        raise RunError(
            f"{where}: was tiled with other blocks than {manifest.path} says; put them back, or "
            f"{_WAY_OUT}"
        )


def refuse_other_data(manifest: Manifest, before: Before, *, tile: TileConfig) -> None:
    """Classes, bands and images may not change under a run.

    Raises:
        DataError: naming the class list, the band list, or every changed image.
    """
    where = before.run.path
    if manifest.class_names != before.manifest.class_names:
        raise DataError(
            f"{where}: was tiled with classes {_list(before.manifest.class_names)}, the manifest "
            f"has {_list(manifest.class_names)}; {_WAY_OUT}"
        )
    if manifest.bands != before.manifest.bands:
        raise DataError(
            f"{where}: was tiled with bands {_list(before.manifest.bands)}, the manifest has "
            f"{_list(manifest.bands)}; {_WAY_OUT}"
        )
    lines = []
    for source in manifest.scenes:
        if source.scene_id in before.record.scenes:
            with open_scene(source, manifest.bands, max_pixels=tile.max_pixels) as reader:
                found = reader.fingerprint()
            if found != before.record.scenes[source.scene_id].fingerprint:
                lines.append(_changed_image(source, before))
    if lines:
        raise DataError("\n".join(lines))


def _changed_image(source: SceneSource, before: Before) -> str:
    known = {scene.scene_id: scene for scene in before.manifest.scenes}
    old = known.get(source.scene_id, source)
    keys = [key for key in _IMAGE_KEYS if repr(getattr(old, key)) != repr(getattr(source, key))]
    what = f"its {', '.join(keys)} changed in the manifest" if keys else "the file changed"
    return (
        f"scene {source.scene_id!r}: {source.image}: not the image that {before.run.path} was "
        f"tiled from ({what}); put it back, or {_WAY_OUT}"
    )


def scenes_to_scan(
    manifest: Manifest,
    before: Before | None,
    *,
    region_px: int,
    patches: bool,
    planned: Collection[str] | None = None,
) -> dict[str, str]:
    """Scenes that must be read, each with the reason, in the manifest's order.

    `planned` are the scenes of the plan that a killed merge left; None: no plan is there.
    """
    reasons: dict[str, str] = {}
    for source in manifest.scenes:
        reason = _reason(source, before, region_px=region_px, patches=patches)
        if reason is None and before is not None and not before.whole:
            under_way = planned is None or source.scene_id in planned
            reason = "finished after an interruption" if under_way else None
        if reason:
            reasons[source.scene_id] = reason
    return reasons


def _reason(
    source: SceneSource, before: Before | None, *, region_px: int, patches: bool
) -> str | None:
    if before is None or source.scene_id not in before.record.scenes:
        return "added"
    record = before.record.scenes[source.scene_id]
    if record.labels_digest != labels_digest(source.labels, region_px=region_px):
        if source.labels is None:
            return "labels removed"
        return "labels read again" if record.labels_digest else "labels added"
    kept = (before.run.labels(source.scene_id), before.run.base_labels(source.scene_id))
    if not all(path.is_file() for path in kept):
        return "missing label rasters made again"
    if patches and not record.patches:
        return "patches added"
    return None


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def same_text(path: Path, text: str) -> bool:
    """True where a file holds exactly this text."""
    return path.is_file() and path.read_text("utf-8") == text
