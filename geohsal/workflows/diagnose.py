"""How good a round's maps and questions were: against what people said, or against the truth."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from geohsal.errors import DataError, RequestError, RunError
from geohsal.geo.states import PixelState
from geohsal.io.atomic import read_record, write_json
from geohsal.io.manifest import load_manifest
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import read_config
from geohsal.refine.diagnosis import RoundDiagnosis, diagnosis, no_counts
from geohsal.workflows.diagnose_read import (
    answered_regions,
    asked_regions,
    changed_share,
    count_pool,
    count_regions,
    read_truths,
)

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
Reference = Literal["answers", "truth"]
FREE_STATES = tuple(state for state in PixelState if state > PixelState.LABELLED)
"""States of pixels that nobody has labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundDiagnostics:
    """A round in figures; all of them are for reporting and set no threshold.

    `judged` are all pixels that could be judged: the answered ones, or with truth the whole pool.
    `chosen` are those in regions asked for their worth, `audit` those in regions drawn at random:
    only the latter say how good the map is. `states` counts pixels of whole scenes by state;
    `changed_share` is of pool pixels whose class changed since the round before. `guards` are
    warnings of the training's collapse guard, `abstaining` the classes that refinement leaves
    alone, with why.
    """

    round: int
    reference: Reference
    request: str | None
    classes: tuple[str, ...]
    judged: RoundDiagnosis
    chosen: RoundDiagnosis
    audit: RoundDiagnosis
    states: dict[str, int]
    changed_share: float | None
    val_miou: float | None
    friend_disagreement: float | None
    guards: tuple[str, ...]
    abstaining: dict[str, str]


def diagnostics_path(round_: Round, reference: Reference = "answers") -> Path:
    """Where `diagnose` writes; the picture lies beside it as .png."""
    suffix = "_truth" if reference == "truth" else ""
    return round_.dir / f"diagnostics{suffix}.json"


def diagnose(
    run_dir: Path, *, round_index: int | None = None, reference: Reference = "answers"
) -> RoundDiagnostics:
    """Measure a queried round and write the outcome into its folder.

    Args:
        run_dir: the run.
        round_index: default: the newest round that can be measured.
        reference: `answers`, what reviewers said of the round's regions after its maps were
            stored; or `truth` of the manifest, in the pool of the train cores, for simulations.

    Raises:
        RunError: the round is not queried, or has no answers.
        LabelError: no scene has truth.
        DataError: rasters of the round are missing or damaged.
    """
    if reference not in ("answers", "truth"):
        raise RequestError(f"reference {reference!r}: write answers or truth")
    run = open_run(run_dir)
    round_ = _round(run, round_index, reference)
    manifest, config = load_manifest(run.manifest), read_config(run)
    classes = manifest.num_classes
    if reference == "truth":
        truths = read_truths(run, manifest)
        asked = asked_regions(round_, truths)
        chosen, audit = count_regions(round_, asked, num_classes=classes)
        judged = count_pool(
            run, round_, truths, num_classes=classes, region_px=config.query.region_px
        )
    else:
        answered = answered_regions(run, round_)
        chosen, audit = count_regions(round_, answered, num_classes=classes)
        judged = no_counts(classes).merge(chosen).merge(audit)
    query = read_record(round_.query_json)
    result = RoundDiagnostics(
        round=round_.index,
        reference=reference,
        request=query.get("request"),
        classes=tuple(manifest.class_names),
        judged=diagnosis(judged),
        chosen=diagnosis(chosen),
        audit=diagnosis(audit),
        states=dict(query.get("summary", {}).get("states", {})),
        changed_share=changed_share(run, round_, seed=config.seed),
        **_training(round_, tuple(manifest.class_names)),
    )
    write_json(
        diagnostics_path(round_, reference), {"format_version": FORMAT_VERSION, **asdict(result)}
    )
    return result


def _round(run: Run, index: int | None, reference: Reference) -> Round:
    """The round to measure."""
    newest = run.current
    if index is None and newest.index and (reference == "answers" or newest.step != "queried"):
        newest = run.round(newest.index - 1)
    round_ = newest if index is None else run.round(index)
    if round_.step not in ("queried", "ingested"):
        raise RunError(f"{run.path}: round {round_.index} is not queried, it has no maps to judge")
    if reference == "answers" and round_.step != "ingested":
        raise RunError(
            f"{run.path}: round {round_.index} has no answers yet; ingest its review first"
        )
    return round_


def _training(round_: Round, names: tuple[str, ...]) -> dict[str, Any]:
    """What the training of the round noted; nothing where its record is not there."""
    metrics = read_record(round_.metrics) if round_.metrics.exists() else {}
    switches = metrics.get("thresholds", {}).get("abstain", [])
    friend = [
        part["friend_disagreement"]
        for part in metrics.get("history", [])
        if "friend_disagreement" in part
    ]
    return {
        "val_miou": metrics.get("val_miou"),
        "friend_disagreement": friend[-1] if friend else None,
        "guards": tuple(metrics.get("guards", ())),
        "abstaining": {
            name: f"{switch['source']}: {switch['reason']}"
            for name, switch in zip(names, switches, strict=False)
            if switch["on"]
        },
    }


def diagnose_answers(run: Run, round_: Round) -> RoundDiagnostics | None:
    """The figures of a round just ingested; None, with a warning, where its maps are gone."""
    try:
        return diagnose(run.path, round_index=round_.index)
    except DataError as error:
        logger.warning("%s; round %d has no diagnostics", error, round_.index)
        return None


def forget_answers(round_: Round) -> None:
    """Remove what was measured against answers that are taken back."""
    path = diagnostics_path(round_)
    path.unlink(missing_ok=True)
    path.with_suffix(".png").unlink(missing_ok=True)


def diagnosis_row(found: RoundDiagnostics) -> dict[str, float | None]:
    """The figures of a round under flat names, for tables; None where nothing can tell."""
    judged, plar = found.judged, found.judged.plar
    right, wrong, neutral = sum(plar.right), sum(plar.wrong), sum(plar.neutral)
    free = sum(found.states.get(state.name, 0) for state in FREE_STATES)
    return {
        "emd_auroc": judged.error_mask.auroc,
        "emd_auroc_confident": judged.confident.auroc,
        "emd_aupr": judged.error_mask.aupr,
        "emd_ece": judged.error_mask.ece,
        "plar_corrected": float(right + wrong + neutral),
        "plar_right": float(right),
        "plar_wrong": float(wrong),
        "plar_neutral": float(neutral),
        "plar_precision": plar.corrected.share if plar.corrected else None,
        "hit_rate": found.chosen.error_rate,
        "audit_hit_rate": found.audit.error_rate,
        "pool_error_rate": judged.error_rate if found.reference == "truth" else None,
        "friend_disagreement": found.friend_disagreement,
        "changed_share": found.changed_share,
        **{
            f"state_{state.name.lower()}": found.states.get(state.name, 0) / free if free else None
            for state in FREE_STATES
        },
    }
