"""Scans of a tile run put together: scenes worked off, their rasters renamed into the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geohsal import __version__
from geohsal.config import Config
from geohsal.errors import DataError, GeohsalError
from geohsal.geo.scene import Tile
from geohsal.io.atomic import write_text
from geohsal.io.fingerprint import file_sha256
from geohsal.io.manifest import Manifest
from geohsal.io.parts import part_path, read_part
from geohsal.io.plan import Plan, freeze_plan
from geohsal.io.run import Run
from geohsal.io.run_tables import (
    SceneRecord,
    TileRecord,
    heldout_labels,
    write_config,
    write_summary,
)
from geohsal.io.tile_index import write_tiles
from geohsal.workflows.engine import Engine, Shard, read_parts, run_plan
from geohsal.workflows.progress import Silent
from geohsal.workflows.scan import SceneScan, SceneTask
from geohsal.workflows.stages import StageFolder
from geohsal.workflows.tile_changes import Before
from geohsal.workflows.tile_work import (
    ScannedScene,
    SceneWork,
    error_of,
    plan_scenes,
    scanned,
)

RASTERS = "rasters"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScan:
    """Scenes to scan for a run, and the folder in which their parts gather.

    `dry_run`: nothing but parts is written.
    """

    run: Run
    tasks: Sequence[SceneTask]
    folder: StageFolder
    dry_run: bool = False

    @property
    def _stage(self) -> Path | None:
        return None if self.dry_run else (self.folder.path / RASTERS).absolute()

    def share(self, plan: Plan, shard: Shard | None, engine: Engine) -> int:
        """Scan what has no part yet; how many scenes.

        Raises:
            GeohsalError: scenes that cannot be used, one line each; the others have their parts.
        """
        work = SceneWork(
            tasks={task.source.scene_id: task for task in self.tasks},
            stage=self._stage,
            progress=engine.progress if engine.alone else None,
        )
        # a worker in this process tells of every tile itself
        teller = replace(engine, progress=Silent()) if engine.alone else engine
        done = run_plan(plan, work, self.folder.parts, shard=shard, engine=teller)
        own = plan.chunk_ids if shard is None else shard.of(plan.chunk_ids)
        self._refuse_failed(own)
        return done

    def _refuse_failed(self, chunk_ids: Sequence[str]) -> None:
        """Name the scenes that failed; their parts go, so that they are tried again."""
        errors = []
        for chunk_id in chunk_ids:
            path = part_path(self.folder.parts, chunk_id)
            error = _error(path)
            if error is not None:
                errors.append(error)
                path.unlink(missing_ok=True)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise DataError("\n".join(str(error) for error in errors))

    def all(self, engine: Engine) -> dict[str, ScannedScene]:
        """Every scene, what is missing scanned now.

        A part whose rasters are gone, or whose image or labels are others by now, is made anew.
        """
        plan, inputs = plan_scenes(self.tasks)
        freeze_plan(self.folder.plan, plan)
        for _ in range(2):
            self.share(plan, None, engine)
            found = self._read(plan)
            stale = [scene for scene in found.values() if not self._stands(scene, inputs)]
            if not stale:
                return found
            for scene in stale:
                part_path(self.folder.parts, scene.chunk_id).unlink(missing_ok=True)
        names = ", ".join(sorted(scene.scan.record.scene_id for scene in stale))
        raise DataError(
            f"{self.run.path}: images or labels change while they are read ({names}); run the "
            "command again when they are complete"
        )

    def _read(self, plan: Plan) -> dict[str, ScannedScene]:
        tasks = {task.source.scene_id: task for task in self.tasks}
        return {
            part.manifest["scene"]: scanned(part, tasks[part.manifest["scene"]])
            for part in read_parts(plan, self.folder.parts)
        }

    def _stands(self, scene: ScannedScene, inputs: Mapping[str, tuple[str, str]]) -> bool:
        """Whether a part is of the image and labels that are there, and its rasters at hand."""
        record = scene.scan.record
        if inputs.get(record.scene_id) != (record.fingerprint, record.labels_digest):
            return False
        return all(
            self._aside(scene, name).is_file() or _is(self.run.path / name, digest)
            for name, digest in scene.files.items()
        )

    def _aside(self, scene: ScannedScene, name: str) -> Path:
        return self.folder.path / RASTERS / scene.chunk_id / name

    def commit(
        self,
        scenes: Mapping[str, ScannedScene],
        *,
        record: TileRecord,
        tiles: Sequence[Tile],
        text: str,
        config: Config | None,
    ) -> TileRecord:
        """Rename everything into place, the tile index last; `config` None keeps config.yaml."""
        run = self.run
        index = self.folder.path / run.tiles.name
        write_tiles(index, tiles)
        final = replace(record, tiles_sha256=file_sha256(index))
        for scene_id, scene in scenes.items():
            for name in scene.files:
                aside, target = self._aside(scene, name), run.path / name
                if aside.is_file():  # else a killed call has moved it
                    target.parent.mkdir(parents=True, exist_ok=True)
                    aside.replace(target)
            held = heldout_labels(run, scene_id)
            if held.relative_to(run.path).as_posix() not in scene.files:
                held.unlink(missing_ok=True)
        write_text(run.manifest, text)
        if config:
            write_config(run.config, config, version=__version__)
        write_summary(run.summary, final)
        index.replace(run.tiles)
        return final


def _error(path: Path) -> GeohsalError | None:
    """The error that a part holds, without reading the rest of it."""
    part = read_part(path, ("error",))
    return None if part is None else error_of(part)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def merged(
    manifest: Manifest, scans: Mapping[str, SceneScan], before: Before | None
) -> tuple[dict[str, SceneRecord], list[Tile]]:
    """Records and tiles in the manifest's order of scenes; what was scanned replaces the old."""
    records: dict[str, SceneRecord] = {}
    tiles: list[Tile] = []
    for source in manifest.scenes:
        scene_id = source.scene_id
        old = before.record.scenes.get(scene_id) if before else None
        if scene_id in scans:
            new = scans[scene_id].record
            records[scene_id] = replace(new, patches=new.patches or bool(old and old.patches))
            tiles.extend(scans[scene_id].tiles)
        elif before and old:
            records[scene_id] = old
            tiles.extend(before.tiles[scene_id])
    return records, tiles


def changes(
    reasons: Mapping[str, str], records: Mapping[str, SceneRecord], before: Before | None
) -> tuple[str, ...]:
    """What changed in an existing run, a line each."""
    if before is None:
        return ()
    lines = []
    for scene_id, reason in reasons.items():
        old = before.record.scenes.get(scene_id)
        now = sum(records[scene_id].labelled.values())
        was = sum(old.labelled.values()) if old else 0
        lines.append(f"scene {scene_id!r}: {reason}; labelled train pixels {was} -> {now}")
    return tuple(lines) or ("manifest.yaml brought up to date; tiles and labels are the same",)
