"""All thresholds of a round; precision is only ever judged on withheld labelled pixels."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geohsal.config import EmdConfig, PlarConfig, SslConfig
from geohsal.refine.error_mask import fit_error_mask
from geohsal.refine.evidence import least_precise_cut
from geohsal.refine.gates import calibrate_gates, held_out_scores
from geohsal.refine.margins import calibrate_margins, fit_temperature
from geohsal.refine.region_share import region_share
from geohsal.refine.sampling import count_regions
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics, thin
from geohsal.refine.thresholds import Switch, Threshold, Thresholds
from geohsal.refine.track_record import TrackRecord, join, record_of

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
    earlier: TrackRecord | None = None,
) -> Thresholds:
    """Thresholds of a round.

    Margins, confidence, suspect threshold and do-no-harm are judged on withheld pixels with
    statistics of the others; the final `statistics` (all pixels) then use them. What people
    answered after earlier rounds counts for margins and do-no-harm too.

    Args:
        pixels: all sampled labelled pixels, withheld ones marked. The error mask is calibrated
            on withheld pixels whose region the EMD did not learn from.
        statistics: fitted on all of them.
        num_classes: C.
        plar: rule, precision, folds.
        ssl: confidence precision and fallback.
        emd: recall and fallbacks of the suspect threshold.
        seed: of folds and draws.
        earlier: suspects of earlier rounds' models that were answered afterwards.
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
        temperature=fit_temperature(outside, _unweighed(seen), plar),
        error_source=mask.source,
        error_reason=mask.reason,
        calibration=mask.calibration,
        health=mask.health,
    )
    own = [] if seen is None else [record_of(outside, seen, draft, plar)]
    record = join([*own, *([] if earlier is None else [earlier])])
    margins = calibrate_margins(draft, record, pixels=sample, folded=folded, config=plar)
    return _with_abstentions(replace(draft, margin=margins), record, config=plar)


def _unweighed(statistics: ClassStatistics | None) -> ClassStatistics | None:
    """The same with all classes alike: withheld pixels have the shares of labels, not the pool's.

    So the temperature is the same one by which `weigh_classes` multiplies shares.
    """
    return None if statistics is None else replace(statistics, log_prior=np.zeros(0))


def weigh_classes(
    statistics: ClassStatistics,
    pixels: LabelledPixels,
    log_share: NDArray[np.float64],
    *,
    config: PlarConfig,
    seed: int,
) -> ClassStatistics:
    """Statistics under which Q counts the pool's class shares, in units of its own confidence.

    Q differences are log odds only after division by their temperature (features of a network are
    far from Gaussian), so the log shares [C] are multiplied by it. Measured on a Landsat scene: the
    best class by Q was right at 59 % of the pixels without shares, 64 % with shares taken as they
    are, 72 % with shares times the temperature (teacher: 72 %).
    """
    sample = thin(pixels.finite(), config=config, seed=seed)
    outside, inside = sample.take(sample.withheld), sample.take(~sample.withheld)
    if not (len(outside) and len(inside)):
        return statistics
    seen = fit_statistics(inside, num_classes=statistics.num_classes, config=config, seed=seed)
    heat = fit_temperature(outside, seen, config).value
    return replace(statistics, log_prior=heat * log_share)


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


def _with_abstentions(draft: Thresholds, record: TrackRecord, *, config: PlarConfig) -> Thresholds:
    """The draft with do-no-harm: classes whose flips of unseen suspects show no gain abstain.

    PLAR and teacher differ only where a label flips, so the gain in accuracy is above zero where
    the lower bound of right / (right + wrong) flips is above one half. Pixels of a region resemble
    each other: the bound counts regions.
    """
    if not config.do_no_harm:
        off = Switch(on=False, source="off", reason="plar.do_no_harm is false")
        return replace(draft, abstain=(off,) * draft.num_classes)
    if len(record) == 0:
        on = Switch(on=True, source="no evidence", reason="no unseen suspects to judge by")
        return replace(draft, abstain=(on,) * draft.num_classes)
    flips = record.flips()
    margin = np.array([threshold.value for threshold in draft.margin])
    flips = flips.take(flips.lead * draft.temperature.value >= margin[flips.chosen])
    gain, loss = flips.chosen == flips.label, flips.teacher == flips.label
    switches = []
    for number in range(draft.num_classes):
        counted = (flips.chosen == number) & (gain | loss)
        switches.append(_switch(gain[counted], flips.region[counted]))
    return replace(draft, abstain=tuple(switches))


def _switch(right: NDArray[np.bool_], region: NDArray[np.integer]) -> Switch:
    """On unless right flips are proven to outnumber wrong ones.

    Args:
        right: [n] flips that were right; the others were wrong.
        region: [n] their regions.
    """
    names, index = np.unique(region, return_inverse=True)
    found = f"{right.sum()} right and {(~right).sum()} wrong flips in {len(names)} unseen regions"
    if len(right) == 0:
        return Switch(on=True, source="no evidence", reason=found)
    share = region_share(np.bincount(index, weights=right).astype(np.int64), np.bincount(index))
    proven = share is not None and share.low > 0.5 and len(names) >= _FEWEST_FLIP_REGIONS
    return Switch(on=not proven, source="calibrated", reason=found)
