"""Whether another round is still worth it, from evidence that needs no test labels.

A map whose teacher changes a share s of its pixels cannot gain more than s in accuracy, so small
changes bound what a round is worth. That alone could be a network that has stopped learning: the
advice to stop also needs random audit regions that say how wrong the map is, and no sign of a gain
in the audit error, in the mIoU on val, or in what refinement can decide. Nothing stops by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from geohsal.config import StopConfig

Verdict = Literal["go on", "may stop", "cannot tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditError:
    """Share of wrong pixels in random audit regions, with a 95 % interval by regions."""

    share: float
    low: float
    high: float
    regions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEvidence:
    """What the rounds of a run tell, oldest first; unknown figures are left out.

    `changes` are shares of pool pixels to which a round's teacher gave another class than the one
    before, `undecided` shares of unlabelled pixels that refinement could not decide, `val_miou` the
    mIoU on val. `audit` pools the audit regions of the last `StopConfig.rounds` answered rounds,
    `audit_before` those of all earlier rounds; None where there are none.
    """

    changes: tuple[float, ...] = ()
    undecided: tuple[float, ...] = ()
    val_miou: tuple[float, ...] = ()
    audit: AuditError | None = None
    audit_before: AuditError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAdvice:
    """The verdict, why, and both as a sentence; `expected_change` is a share of the map or None."""

    verdict: Verdict
    reasons: tuple[str, ...]
    expected_change: float | None
    audit: AuditError | None
    message: str


def advise(evidence: StopEvidence, config: StopConfig) -> StopAdvice:
    """Go on at any sign of a gain; stop only where all evidence is there and none shows one.

    The next change of the map is expected to be the largest of the last `config.rounds`.
    """
    recent = evidence.changes[-config.rounds :]
    expected = max(recent) if recent else None
    gains = _gains(evidence, config)
    missing = _missing(evidence, config)
    if gains:
        verdict: Verdict = "go on"
    else:
        verdict = "cannot tell" if missing else "may stop"
    reasons = gains or missing
    return StopAdvice(
        verdict=verdict,
        reasons=tuple(reasons),
        expected_change=expected,
        audit=evidence.audit,
        message=_message(verdict, reasons, evidence, config),
    )


def _gains(evidence: StopEvidence, config: StopConfig) -> list[str]:
    """Signs that another round is worth it."""
    found = []
    changes = evidence.changes[-config.rounds :]
    if changes and max(changes) >= config.min_change:
        found.append(f"a round still changed {_percent(max(changes))} of the map")
    now, before = evidence.audit, evidence.audit_before
    if now and before and before.share - now.share >= config.min_gain and now.high < before.share:
        found.append(f"the audit error fell from {_percent(before.share)} to {_percent(now.share)}")
    gain = _gain(evidence.val_miou, config.rounds)
    if gain is not None and gain >= config.min_gain * config.rounds:
        found.append(f"the mIoU on val rose by {gain:.3f} in {config.rounds} rounds")
    fall = _gain([-share for share in evidence.undecided], config.rounds)
    if fall is not None and fall >= config.min_gain * config.rounds:
        found.append(f"{_percent(fall)} fewer pixels are undecided than {config.rounds} rounds ago")
    return found


def _gain(values: Sequence[float], rounds: int) -> float | None:
    """Best of the last rounds over the best before; None where there is none before."""
    if len(values) <= rounds:
        return None
    return max(values[-rounds:]) - max(values[:-rounds])


def _missing(evidence: StopEvidence, config: StopConfig) -> list[str]:
    """Evidence without which nobody should stop."""
    found = []
    if len(evidence.changes) < config.rounds:
        known = len(evidence.changes)
        found.append(f"{known} of {config.rounds} changes of the map are known")
    regions = evidence.audit.regions if evidence.audit else 0
    if regions < config.min_audit_regions:
        found.append(
            f"{regions} of {config.min_audit_regions} audit regions are answered in the last "
            f"{config.rounds} rounds"
        )
    return found


def _message(
    verdict: Verdict, reasons: Sequence[str], evidence: StopEvidence, config: StopConfig
) -> str:
    error = f"; {_audit(evidence.audit)}" if evidence.audit else ""
    if verdict == "may stop":
        return (
            f"another round is expected to change < {_percent(config.min_change)} of the map"
            f"{error}: you may stop"
        )
    if verdict == "go on":
        return f"another round is worth it: {'; '.join(reasons)}{error}"
    return f"cannot tell yet whether another round is worth it: {'; '.join(reasons)}{error}"


def _audit(error: AuditError) -> str:
    return f"audit error {_percent(error.share)} ({100 * error.low:.1f}-{100 * error.high:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
