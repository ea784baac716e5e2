"""All thresholds of a round; precision is only ever judged on withheld labelled pixels."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.config import EmdConfig, PlarConfig, SslConfig
from geohsal.kernels.plar import Decision
from geohsal.refine.error_mask import error_probability, fit_error_mask
from geohsal.refine.evidence import least_precise_cut, wilson_lower
from geohsal.refine.gates import calibrate_gates, held_out_scores
from geohsal.refine.margins import calibrate_margins, fit_temperature, score_sample
from geohsal.refine.sampling import count_regions
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics, thin
from geohsal.refine.thresholds import Switch, Threshold, Thresholds

_FEWEST_REGIONS = 3  # withheld regions below which precision is not estimated
_FEWEST_FLIP_REGIONS = 2  # one region is one accident
_MOST_SCORES = 50_000_000  # pixels times classes that are scored at a time: 400 MB
_UNSET = Switch(on=False, source="unset", reason="")


def calibrate(
    pixels: LabelledPixels,
    statistics: ClassStatistics,
    *,
    num_classes: int,
    plar: PlarConfig,
    ssl: SslConfig,
    emd: EmdConfig,
    seed: int,
) -> Thresholds:
    """Thresholds of a round.

    Margins, confidence, suspect threshold and do-no-harm are judged on withheld pixels with
    statistics of the others; the final `statistics` (all pixels) then use them.

    Args:
        pixels: all sampled labelled pixels, withheld ones marked. The error mask is calibrated
            on withheld pixels whose region the EMD did not learn from.
        statistics: fitted on all of them.
        num_classes: C.
        plar: rule, precision, folds.
        ssl: confidence precision and fallback.
        emd: recall and fallbacks of the suspect threshold.
        seed: of folds and draws.
    """
    sample = thin(pixels.finite(), config=plar, seed=seed)
    if len(sample) * num_classes > _MOST_SCORES:
        share = _MOST_SCORES / (len(sample) * num_classes)
        plar = replace(plar, pixels_per_region=max(1, int(plar.pixels_per_region * share)))
        sample = thin(sample, config=plar, seed=seed)
    outside, inside = sample.take(sample.withheld), sample.take(~sample.withheld)
    seen = None
    if len(outside) and len(inside):
        seen = fit_statistics(
            inside,
            num_classes=num_classes,
            config=plar,
            seed=seed,
            log_prior=statistics.log_prior,
        )
    unseen = outside if outside.error_seen is None else outside.take(~outside.error_seen)
    mask = fit_error_mask(unseen, config=emd, seed=seed)
    folded = held_out_scores(sample, statistics=statistics, config=plar, seed=seed)
    draft = Thresholds(
        gate=calibrate_gates(sample, folded, seen=seen, statistics=statistics, config=plar),
        margin=(Threshold(value=0.0, source="unset", reason=""),) * num_classes,
        confidence=_confidence(outside, num_classes=num_classes, config=ssl),
        abstain=(_UNSET,) * num_classes,
        suspect=mask.suspect,
        temperature=fit_temperature(outside, seen, plar),
        error_source=mask.source,
        error_reason=mask.reason,
        calibration=mask.calibration,
        health=mask.health,
    )
    margins = calibrate_margins(draft, outside, seen, pixels=sample, folded=folded, config=plar)
    return _with_abstentions(replace(draft, margin=margins), outside, seen, config=plar)


def _confidence(
    outside: LabelledPixels, *, num_classes: int, config: SslConfig
) -> tuple[Threshold, ...]:
    withheld = count_regions(outside.label, outside.region, num_classes=num_classes)
    right = outside.teacher == outside.label
    thresholds = []
    for number in range(num_classes):
        said = outside.teacher == number
        cut, found = None, f"{withheld[number]} withheld regions"
        if withheld[number] >= _FEWEST_REGIONS:
            cut = least_precise_cut(
                outside.confidence[said], right[said], precision=config.confidence_precision
            )
            found = f"{int(said.sum())} predictions in withheld regions"
        if cut is not None:
            goal = f"precision {config.confidence_precision:.2f} of {found}"
            thresholds.append(Threshold(value=cut, source="calibrated", reason=goal))
        else:
            enough = withheld[number] >= _FEWEST_REGIONS
            reason = f"{found} prove no precision" if enough else f"only {found}"
            thresholds.append(
                Threshold(value=config.confidence_fallback, source="fallback", reason=reason)
            )
    return tuple(thresholds)


def _with_abstentions(
    draft: Thresholds,
    outside: LabelledPixels,
    seen: ClassStatistics | None,
    *,
    config: PlarConfig,
) -> Thresholds:
    """The draft with do-no-harm: classes whose flips of withheld suspects show no gain abstain.

    PLAR and teacher differ only where a label flips, so the gain in accuracy is above zero where
    Wilson's lower bound of right / (right + wrong) flips is above one half.
    """
    if not config.do_no_harm:
        off = Switch(on=False, source="off", reason="plar.do_no_harm is false")
        return replace(draft, abstain=(off,) * draft.num_classes)
    suspects = outside.take(_suspects(outside, draft))
    if seen is None or len(suspects) == 0:
        on = Switch(on=True, source="no evidence", reason="no withheld suspects to judge by")
        return replace(draft, abstain=(on,) * draft.num_classes)
    scores = score_sample(suspects, seen, draft, config)
    flipped = scores.code.numpy() == int(Decision.CORRECTED)
    chosen = scores.chosen.numpy()
    gain, loss = chosen == suspects.label, suspects.teacher == suspects.label
    switches = []
    for number in range(draft.num_classes):
        counted = flipped & (chosen == number) & (gain | loss)
        switches.append(
            _switch(
                int((counted & gain).sum()),
                int((counted & loss).sum()),
                len(np.unique(suspects.region[counted])),
            )
        )
    return replace(draft, abstain=tuple(switches))


def _suspects(outside: LabelledPixels, thresholds: Thresholds) -> NDArray[np.bool_]:
    differ = outside.disagreement
    probability = error_probability(
        torch.from_numpy(np.asarray(outside.error, dtype=np.float32)),
        torch.from_numpy(np.asarray(outside.confidence, dtype=np.float32)),
        None if differ is None else torch.from_numpy(np.asarray(differ, dtype=np.bool_)),
        thresholds=thresholds,
    )
    return np.asarray((probability >= thresholds.suspect.value).numpy(), dtype=np.bool_)


def _switch(right: int, wrong: int, regions: int) -> Switch:
    found = f"{right} right and {wrong} wrong flips in {regions} withheld regions"
    if right + wrong == 0:
        return Switch(on=True, source="no evidence", reason=found)
    proven = float(wilson_lower(right, right + wrong)) > 0.5 and regions >= _FEWEST_FLIP_REGIONS
    return Switch(on=not proven, source="calibrated", reason=found)
