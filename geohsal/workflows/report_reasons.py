"""Why PLAR changed a patch, or leaves a class alone: in words, from what the records say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geohsal.errors import ModelError
from geohsal.geo.scene import ClassInfo
from geohsal.refine.thresholds import GATE_AGREEMENT, Switch, Threshold, Thresholds
from geohsal.workflows.report_patches import Correction

UNKNOWN = "model.json of the round does not say why"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model goes by when it corrects to a class; `gate` and `margin` None: it has none.

    `proof` is the switch that lets PLAR assign the class, `rule` and `neighbours` are of the
    settings.
    """

    rule: str
    neighbours: int
    suspect: Threshold
    margin: Threshold
    gate: Threshold
    proof: Switch


def limits_of(class_id: int, passport: Mapping[str, Any]) -> Limits | None:
    """The limits of a class by model.json; None where that does not say."""
    try:
        found = Thresholds.from_dict(passport["thresholds"])
        plar = passport["config"]["plar"]
        return Limits(
            rule=str(plar["rule"]),
            neighbours=int(plar.get("neighbours", 0)),
            suspect=found.suspect,
            margin=found.margin[class_id],
            gate=found.gate[class_id],
            proof=found.abstain[class_id],
        )
    except (ModelError, KeyError, IndexError, TypeError, ValueError):
        return None


def why_corrected(
    item: Correction, classes: Sequence[ClassInfo], passport: Mapping[str, Any]
) -> str:
    """Why a patch was corrected, in one sentence.

    Args:
        item: the patch.
        classes: in the order of their ids.
        passport: model.json of the round.
    """
    new, old = classes[item.refined].name, classes[item.teacher].name
    stated = "unknown" if item.error is None else f"{item.error:.2f} on average"
    start = f"The teacher said {old}, the error probability here is {stated}"
    limits = limits_of(item.refined, passport)
    if limits is None:
        return f"{start}; {UNKNOWN}."
    return (
        f"{start}, and PLAR looks where it is {limits.suspect.value:.2f} or more; "
        f"{_ranking(limits, new)}, and {_gate(limits, new)}."
    )


def _ranking(limits: Limits, new: str) -> str:
    if limits.rule == "faithful":
        return f"both distances to the labelled pixels rank {new} first"
    lead = f" by the margin of {limits.margin.value:.1f} or more"
    if limits.rule == "knn":
        return f"the {limits.neighbours} nearest labelled pixels vote for {new}{lead}"
    return f"the statistics of the labelled pixels rank {new} first{lead}"


def _gate(limits: Limits, new: str) -> str:
    if limits.gate.source != GATE_AGREEMENT:
        return f"the pixels lie within the distance gate of {new}, {limits.gate.value:.1f}"
    if limits.rule == "knn":
        return f"for want of a distance gate, the nearest labelled pixel had to be {new}"
    return f"for want of a distance gate, all three rankings had to agree on {new}"


def limit_rows(
    class_ids: Sequence[int], classes: Sequence[ClassInfo], passport: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """(limit, value, where it comes from) behind corrections to these classes."""
    rows: list[tuple[str, str, str]] = []
    for class_id in class_ids:
        limits = limits_of(class_id, passport)
        if limits is None:
            continue
        name = classes[class_id].name
        if not rows:
            rows.append(_row("suspect from", limits.suspect))
        if limits.rule != "faithful":
            rows.append(_row(f"margin of {name}", limits.margin))
        rows.append(_row(f"distance gate of {name}", limits.gate))
        rows.append((f"corrections to {name}", "allowed", _source(limits.proof)))
    return rows


def _row(name: str, found: Threshold) -> tuple[str, str, str]:
    value = f"{found.value:.2f}" if math.isfinite(found.value) else "none"
    return name, value, _source(found)


def _source(found: Threshold | Switch) -> str:
    return f"{found.source}: {found.reason}"


def why_abstaining(
    classes: Sequence[ClassInfo], passport: Mapping[str, Any]
) -> dict[str, str] | None:
    """Classes that refinement leaves alone, with why; None where the record does not say."""
    found = [limits_of(info.class_id, passport) for info in classes]
    return (
        {
            info.name: _source(limits.proof)
            for info, limits in zip(classes, found, strict=True)
            if limits is not None and limits.proof.on
        }
        if all(found)
        else None
    )


def error_source(passport: Mapping[str, Any]) -> str | None:
    """What the error probability is made of, and why; None where the record does not say."""
    try:
        found = Thresholds.from_dict(passport["thresholds"])
    except (ModelError, KeyError, TypeError):
        return None
    made_of = "the error mask" if found.error_source == "emd" else "the teacher's confidence"
    return f"the error probability comes from {made_of} ({found.error_reason})"
