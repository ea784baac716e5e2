"""Which answers of a round stand; none of an ingested one: its undo was interrupted."""

from geohsal.errors import RunError
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.run import Round, Run


def standing(run: Run, index: int) -> list[LedgerEntry]:
    """The entries of a round that stand."""
    return [entry for entry in active_entries(read_ledger(run.ledger)) if entry.round == index]


def half_undone(run: Run) -> Round | None:
    """The round before the open one where a killed undo has taken its answers back, but not it."""
    last = run.current.index - 1
    return run.round(last) if last >= 0 and not standing(run, last) else None


def way_out(run: Run, index: int) -> str:
    """What to do about an undo of round `index` that was interrupted, in words, up to a command."""
    following = run.round(index + 1)
    if following.step == "tiled":
        return f"an undo of round {index} was interrupted: finish it with"
    return (
        f"an undo of round {index} was interrupted and round {following.index} has trained since, "
        f"on labels that no longer hold: move {following.dir} away, then finish the undo with"
    )


def undo_command(run: Run) -> tuple[str, ...]:
    """The command that finishes an undo."""
    return "geohsal", "ingest", str(run.path), "--undo"


def interrupted_undo(run: Run, index: int) -> RunError:
    """The error for work on a round whose undo was interrupted."""
    return RunError(f"{run.path}: {way_out(run, index)}: {' '.join(undo_command(run))}")


def refuse_half_undone(run: Run) -> None:
    """Nothing goes on before an interrupted undo is finished.

    Raises:
        RunError: there is one.
    """
    round_ = half_undone(run)
    if round_ is not None:
        raise interrupted_undo(run, round_.index)
