"""The evidence on whether another round is worth it, gathered from what the rounds left behind."""

from collections.abc import Sequence
from typing import Any

from geohsal.config import StopConfig
from geohsal.geo.states import UNDECIDED
from geohsal.io.atomic import read_record
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.run import Round, Run
from geohsal.io.run_tables import read_config
from geohsal.query.stopping import AuditError, StopAdvice, StopEvidence, advise
from geohsal.refine.region_share import region_share
from geohsal.workflows.diagnose import FREE_STATES, diagnostics_path


def stop_advice(run: Run) -> StopAdvice | None:
    """Whether another round is worth it; None before any answers are in.

    Raises:
        DataError: a record of the run is damaged.
    """
    if not run.current.index:
        return None
    config = read_config(run).stop
    return advise(stop_evidence(run, config), config)


def stop_evidence(run: Run, config: StopConfig) -> StopEvidence:
    """What the ingested rounds tell, and the mIoU on val of an open round that is trained.

    The audit error is the ledger's: it needs no map, and holds for the map that was asked about.
    """
    current = run.current.index
    rounds = [run.round(index) for index in range(current)]
    entries = active_entries(read_ledger(run.ledger))
    recent = current - config.rounds
    changes = [_changed(round_) for round_ in rounds]
    undecided = [_undecided(round_) for round_ in rounds]
    val_miou = [_val_miou(run.round(index)) for index in range(current + 1)]
    return StopEvidence(
        changes=tuple(value for value in changes if value is not None),
        undecided=tuple(value for value in undecided if value is not None),
        val_miou=tuple(value for value in val_miou if value is not None),
        audit=_audit([entry for entry in entries if entry.round >= recent]),
        audit_before=_audit([entry for entry in entries if entry.round < recent]),
    )


def _audit(entries: Sequence[LedgerEntry]) -> AuditError | None:
    own = [
        (entry.teacher_wrong, entry.labelled_pixels)
        for entry in entries
        if entry.audit and entry.teacher_wrong is not None and entry.status == "done"
    ]
    found = region_share([wrong for wrong, _ in own], [pixels for _, pixels in own])
    if found is None:
        return None
    return AuditError(share=found.share, low=found.low, high=found.high, regions=found.regions)


def _changed(round_: Round) -> float | None:
    path = diagnostics_path(round_)
    share: float | None = read_record(path).get("changed_share") if path.exists() else None
    return share


def _undecided(round_: Round) -> float | None:
    summary: dict[str, Any] = read_record(round_.query_json).get("summary", {})
    states = summary.get("states", {})
    free = sum(states.get(state.name, 0) for state in FREE_STATES)
    return sum(states.get(state.name, 0) for state in UNDECIDED) / free if free else None


def _val_miou(round_: Round) -> float | None:
    measured = read_record(round_.metrics).get("val_miou") if round_.metrics.exists() else None
    return None if measured is None else float(measured)
