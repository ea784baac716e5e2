"""What `geohsal tile` does to the folder of a run: be alone in it, work in it, leave no trace."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geohsal.errors import BusyError, DataError
from geohsal.io.atomic import clear_dead, discard, unwritten
from geohsal.io.lock import changing, forget_dead
from geohsal.io.run import Run
from geohsal.workflows.stages import StageFolder, tile_folder
from geohsal.workflows.stamps import Stamps, refuse_changed
from geohsal.workflows.tile_merge import RASTERS


def tidy_folder(run: Run) -> None:
    """Remove what killed commands left of a run that is complete, unless one is at work."""
    folder = tile_folder(run)
    if folder.path.exists():
        with suppress(BusyError), changing(run, "tile"):
            discard(folder.path)
    clear_dead(run.path)  # one that was killed while it discarded
    forget_dead(run)


@contextmanager
def alone(run: Run, seen: Stamps, *, dry_run: bool) -> Iterator[None]:
    """Be the only command that changes the run, which must be as it was seen before.

    Scenes that are kept and the ledger's answers are written anew: what another command has added
    to them meanwhile would be lost. A new run's folder goes again if nothing is kept in it.
    """
    if dry_run:
        yield
        return
    fresh = not run.path.exists()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(run.path, error) from None
    try:
        with changing(run, "tile"):
            refuse_changed(run, seen)
            yield
    finally:
        if fresh:
            with suppress(OSError):  # something is kept in it
                run.path.rmdir()


@contextmanager
def working(run: Run, *, dry_run: bool, keep: bool = False) -> Iterator[StageFolder]:
    """The folder in which parts gather; gone when all went well, unless they are to be kept.

    After an error finished parts stay for the next call; without any, no trace stays. A share never
    removes anything: others may be at work in the folder.
    """
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="geohsal-") as folder:
            yield StageFolder(path=Path(folder))
        return
    folder_ = tile_folder(run)
    try:
        folder_.parts.mkdir(parents=True, exist_ok=True)
        yield folder_
        if not keep:
            discard(folder_.path)
    except OSError as error:
        raise DataError(f"{run.path}: cannot be written ({error.strerror or error})") from error
    finally:
        if not keep and folder_.parts.is_dir() and _is_idle(folder_):
            discard(folder_.path)


def _is_idle(folder: StageFolder) -> bool:
    """Whether there is neither a part nor a scene that some share is reading."""
    rasters = folder.path / RASTERS
    return not any(folder.parts.iterdir()) and not (rasters.is_dir() and any(rasters.iterdir()))
