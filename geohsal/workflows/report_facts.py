"""What a run's records say, gathered for its report; rasters are not looked at here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.atomic import read_record
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.manifest import load_manifest
from geohsal.io.run import Round, Run, Step
from geohsal.io.run_tables import load_scenes
from geohsal.query.costs import Review, gaps
from geohsal.refine.diagnosis import ErrorMaskQuality, ReliabilityBin
from geohsal.workflows.diagnose import diagnostics_path
from geohsal.workflows.status import RunStatus, status

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the answers of a round cost; `measured` of `regions` were timed, `ha` None: no ground.

    `taken` is the day on which they were taken in, as the ledger has it.
    """

    regions: int
    pixels: int
    ha: float | None
    minutes: float
    measured: int
    taken: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a query asked for and expects it to cost; `states` counts pixels of whole scenes."""

    regions: int
    audits: int
    pixels: int
    ha: float | None
    minutes: float
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """An evaluation record; `confusion` is (reference, map). `stale`: of an older model."""

    oa: float
    miou: float
    pixels: int
    reference: Mapping[str, str]
    per_class: Mapping[str, Mapping[str, float | None]]
    confusion: NDArray[np.int64]
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The error mask of a round held against `reference`: answers or truth."""

    reference: str
    every: ErrorMaskQuality
    confident: ErrorMaskQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """One round; None where it left no record. `passport` is model.json, {} without a model."""

    round: Round
    step: Step
    spent: Spent | None
    asked: Asked | None
    measured: Measured | None
    calibration: Calibration | None
    passport: Mapping[str, Any]

    @property
    def index(self) -> int:
        """Number of the round."""
        return self.round.index


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run; `mapped` is the newest round that has maps."""

    status: RunStatus
    classes: tuple[ClassInfo, ...]
    scenes: Mapping[str, Scene]
    rounds: tuple[RoundFacts, ...]

    @property
    def mapped(self) -> RoundFacts | None:
        """The newest queried round."""
        return self.newest(lambda item: item.asked is not None)

    @property
    def model(self) -> RoundFacts | None:
        """The newest round with a model."""
        return self.newest(lambda item: bool(item.passport))

    def newest(self, holds: Callable[[RoundFacts], bool]) -> RoundFacts | None:
        """The newest round of which something holds."""
        return next((item for item in reversed(self.rounds) if holds(item)), None)


def run_facts(run: Run) -> RunFacts:
    """Read the records of a run.

    Raises:
        DataError: a record is damaged.
    """
    manifest = load_manifest(run.manifest)
    entries = active_entries(read_ledger(run.ledger))
    names = manifest.class_names
    return RunFacts(
        status=status(run.path, work=False),
        classes=tuple(manifest.classes),
        scenes=load_scenes(run),
        rounds=tuple(
            _round(run.round(index), entries, names) for index in range(run.current.index + 1)
        ),
    )


def _round(round_: Round, entries: Sequence[LedgerEntry], names: Sequence[str]) -> RoundFacts:
    passport = read_record(round_.model_json) if round_.model_json.exists() else {}
    return RoundFacts(
        round=round_,
        step=round_.step,
        spent=_spent([entry for entry in entries if entry.round == round_.index]),
        asked=_parsed(round_.query_json, _asked),
        measured=_parsed(
            round_.evaluation, lambda found: _measured(found, passport.get("model_hash"), names)
        ),
        calibration=_calibration(round_),
        passport=passport,
    )


def _parsed(path: Path, parse: Callable[[dict[str, Any]], Found]) -> Found | None:
    """A record in its form; None where there is none."""
    if not path.exists():
        return None
    record = read_record(path)
    try:
        return parse(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); restore it from a copy") from None


def _spent(entries: Sequence[LedgerEntry]) -> Spent | None:
    if not entries:
        return None
    areas = [entry.area_m2 for entry in entries if entry.area_m2 is not None]
    stamps = {
        (who, stamp): Review(reviewer=who, reviewed_ms=stamp, answers=None)
        for entry in entries
        for who, stamp in entry.seen
    }
    timed = {(found.reviewer, found.reviewed_ms) for found, _ in gaps(stamps.values())}
    return Spent(
        regions=len({entry.region_id for entry in entries}),
        pixels=sum(entry.pixels for entry in entries),
        ha=sum(areas) / 10_000 if len(areas) == len(entries) else None,
        minutes=sum(entry.seconds for entry in entries) / 60,
        measured=sum(bool(entry.seen) and timed.issuperset(entry.seen) for entry in entries),
        taken=max(entry.time for entry in entries)[:10],
    )


def _asked(record: dict[str, Any]) -> Asked:
    summary = record.get("summary", {})
    area = summary.get("area_ha")
    return Asked(
        regions=int(summary.get("regions", 0)),
        audits=int(summary.get("audit_regions", 0)),
        pixels=int(summary.get("pixels", 0)),
        ha=None if area is None else float(area),
        minutes=float(summary.get("minutes", 0.0)),
        states={str(name): int(count) for name, count in summary.get("states", {}).items()},
    )


def _measured(record: dict[str, Any], model_hash: str | None, names: Sequence[str]) -> Measured:
    confusion = np.array(record["confusion"], dtype=np.int64).reshape(len(names), len(names))
    return Measured(
        oa=float(record["oa"]),
        miou=float(record["miou"]),
        pixels=int(record["pixels"]),
        reference=dict(record["reference"]),
        per_class={name: dict(record["per_class"][name]) for name in names},
        confusion=confusion,
        stale=model_hash is not None and record["model_hash"] != model_hash,
    )


def _calibration(round_: Round) -> Calibration | None:
    """Against what reviewers said, else against the truth; None where nobody looked."""
    return _parsed(diagnostics_path(round_), _judged) or _parsed(
        diagnostics_path(round_, "truth"), _judged
    )


def _judged(record: dict[str, Any]) -> Calibration:
    return Calibration(
        reference=str(record["reference"]),
        every=_quality(record["judged"]["error_mask"]),
        confident=_quality(record["judged"]["confident"]),
    )


def _quality(found: dict[str, Any]) -> ErrorMaskQuality:
    return ErrorMaskQuality(
        pixels=int(found["pixels"]),
        errors=int(found["errors"]),
        auroc=found["auroc"],
        aupr=found["aupr"],
        ece=found["ece"],
        reliability=tuple(ReliabilityBin(**item) for item in found["reliability"]),
    )
