"""The k-nearest-neighbour variant of PLAR: constants of its operator from a round's statistics."""

from dataclasses import replace

import torch

from geohsal.config import PlarConfig
from geohsal.errors import ModelError
from geohsal.kernels.knn import KnnOperands, class_weights
from geohsal.refine.statistics import ClassStatistics
from geohsal.refine.thresholds import Thresholds


def knn_operands(
    statistics: ClassStatistics, thresholds: Thresholds, config: PlarConfig
) -> KnnOperands:
    """Constants of the operator; the same for all pixels until statistics are refreshed.

    Raises:
        ModelError: the statistics hold no labelled pixels.
    """
    limits = thresholds.to_tensors()
    return replace(
        open_operands(statistics, config),
        gate=limits["gate"],
        gated=limits["gated"],
        margin=limits["margin"],
        support=torch.from_numpy(statistics.supported(config.min_regions)),
        abstain=limits["abstain"],
    )


def open_operands(statistics: ClassStatistics, config: PlarConfig) -> KnnOperands:
    """Constants without thresholds; priors are uniform over the classes that have bank pixels."""
    if len(statistics.bank) == 0:
        raise ModelError(
            "class statistics: no labelled pixels are stored, so plar.rule=knn cannot be used; "
            "train again with plar.rule=knn"
        )
    tensors, classes = statistics.to_tensors(), statistics.num_classes
    label = tensors["bank_label"].long()
    return KnnOperands(
        center=tensors["center"].float(),
        projection=(tensors["pooled_whitening"] @ tensors["projection"]).float(),
        bank=tensors["bank"],
        bank_label=label,
        class_weight=class_weights(label, num_classes=classes),
        gate=torch.full((classes,), torch.inf),
        gated=torch.zeros(classes, dtype=torch.bool),
        margin=torch.zeros(classes),
        support=torch.ones(classes, dtype=torch.bool),
        abstain=torch.zeros(classes, dtype=torch.bool),
        scale=float(statistics.scale[0]),
        neighbours=config.neighbours,
    )
