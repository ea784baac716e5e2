"""What PLAR of earlier rounds was worth, judged by the answers that came afterwards."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.data.index import LabelledRegion
from geohsal.errors import GeohsalError, ModelError
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.refine.priors import (
    FLOOR,
    AnsweredRound,
    PoolPriors,
    known_priors,
    prior_shift,
)
from geohsal.refine.track_record import TrackRecord, join, record_of
from geohsal.training.collect import collect_pixels
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.context import RunContext

logger = logging.getLogger(__name__)


def track_record(
    context: RunContext,
    regions: Sequence[LabelledRegion],
    *,
    before: int,
    answered: Sequence[AnsweredRound],
    device: torch.device,
) -> TrackRecord:
    """Suspects of the models before a round in the regions that were answered afterwards.

    The models judge under the class shares that are known now, as the round's own will; these come
    from the same answers, which favours classes that are frequent there a little. A model whose
    leads have no unit (no calibrated temperature) is left out; one that was deleted, or trained for
    another rule, with a warning.

    Args:
        context: the run.
        regions: all labelled regions.
        before: the round that is trained.
        answered: what the rounds say of the pool's class shares.
        device: where to judge.
    """
    config = context.config
    if config.plar.rule == "none":
        return join([])
    priors = known_priors(config.prior, answered, classes=context.manifest.num_classes)
    asked = _asked_in(context)
    records = []
    for index in range(before):
        mine = [item for item in regions if asked.get((item.scene_id, item.number)) == index]
        if not mine:
            continue
        try:
            model = load_model(context.run.round(index).model_dir)
            replayed = _replay(context, model, mine, priors, device)
            records += [] if replayed is None else [replayed]
        except GeohsalError as error:
            logger.warning("round %d tells nothing of PLAR: %s", index, error)
    return join(records)


def _asked_in(context: RunContext) -> dict[tuple[str, int], int]:
    """The round that asked about each answered region, by scene and region number."""
    return {
        (entry.scene_id, entry.region_number): entry.round
        for entry in active_entries(read_ledger(context.run.ledger))
        if entry.status == "done"
    }


def _replay(
    context: RunContext,
    model: Model,
    regions: Sequence[LabelledRegion],
    priors: PoolPriors,
    device: torch.device,
) -> TrackRecord | None:
    state, plar = model.refine_state, context.config.plar
    if state is None or model.config.plar.rule != plar.rule:
        raise ModelError(f"its model was trained with plar.rule={model.config.plar.rule}")
    statistics, thresholds = state.statistics, state.thresholds
    if thresholds.temperature.source != "calibrated":
        logger.info("its leads have no unit: %s", thresholds.temperature.reason)
        return None
    statistics = replace(statistics, log_prior=np.zeros(0))
    if priors.share is not None and context.config.train.heldout_share > 0:
        if model.taught is not None:
            _shift(model, model.taught, priors, labelled=statistics.present, context=context)
        heat = thresholds.temperature.value
        statistics = replace(statistics, log_prior=heat * np.log(priors.share + FLOOR))
    pixels = collect_pixels(model.predictor(device), context.opener, regions, withheld=frozenset())
    return record_of(pixels, statistics, thresholds, plar)


def _shift(
    model: Model,
    taught: NDArray[np.float64],
    priors: PoolPriors,
    *,
    labelled: NDArray[np.bool_],
    context: RunContext,
) -> None:
    shift = prior_shift(priors, taught, labelled=labelled, config=context.config.prior)
    model.networks.prior_shift.copy_(torch.from_numpy(shift))
