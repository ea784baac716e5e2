"""Whether a run is still what a command saw when it began; asked once it holds the run's lock."""

from pathlib import Path

from geohsal.errors import RunError
from geohsal.io.run import Run

Stamps = tuple[object, ...]


def stamps(run: Run) -> Stamps:
    """What differs once a run is tiled, trained or ingested anew: its files are new ones then.

    To be taken before anything else is read of the run; also of a folder that is none yet.
    """
    round_ = run.current
    rounds = sorted(path.name for path in run.path.glob("round_*"))
    files = (run.tiles, run.summary, run.manifest, run.config, run.ledger, round_.model_json)
    return (round_.index, *rounds, *map(_stamp, files))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def refuse_changed(run: Run, seen: Stamps) -> None:
    """What a command has read of a run must still hold.

    Raises:
        RunError: it does not.
    """
    if stamps(run) != seen:
        raise RunError(
            f"{run.path}: another command has trained, ingested or tiled since this one began; "
            "give this command again"
        )
