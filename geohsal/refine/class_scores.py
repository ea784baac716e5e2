"""Distances and scores of labelled pixels for every class, under the configured rule.

The rules differ in what is near and what wins: Mahalanobis distance and Q, or the nearest labelled
pixels and their votes. Gates, margins and temperature are calibrated alike on both.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.config import PlarConfig
from geohsal.kernels import knn
from geohsal.refine.neighbours import open_operands
from geohsal.refine.statistics import ClassStatistics

_Array = NDArray[np.float64]


class ClassScores(NamedTuple):
    """Scores of n pixels for C classes; inf where a class cannot be judged."""

    distance: _Array  # [n, C], squared; what the gate limits
    q: _Array  # [n, C], differences are twice log odds; what the margin limits


def class_scores(
    statistics: ClassStatistics, features: NDArray[np.floating], config: PlarConfig
) -> ClassScores:
    """Scores of features [n, F] under statistics that have not seen them."""
    if config.rule == "knn":
        return _votes(statistics, features, config)
    distance = statistics.mahalanobis(features)
    penalty = statistics.logdet - 2 * np.where(statistics.present, statistics.log_priors, 0.0)
    return ClassScores(distance, distance + penalty)


def scores_without_own(
    statistics: ClassStatistics,
    features: NDArray[np.floating],
    label: NDArray[np.integer],
    scores: ClassScores,
    config: PlarConfig,
) -> ClassScores:
    """The scores, had the class of each pixel no labels; its own column is inf.

    Elsewhere classes are scored one by one and nothing else changes. Among neighbours, others take
    the places of those that are left out.
    """
    distance, q = scores.distance.copy(), scores.q.copy()
    if config.rule == "knn":
        for number in np.unique(label):
            others = statistics.bank_label != number
            rows = np.flatnonzero(label == number)
            if others.any():
                rest = replace(
                    statistics,
                    bank=statistics.bank[others],
                    bank_label=statistics.bank_label[others],
                )
                distance[rows], q[rows] = _votes(rest, features[rows], config)
            else:
                distance[rows] = q[rows] = np.inf
    rows = np.arange(len(label))
    distance[rows, label] = q[rows, label] = np.inf
    return ClassScores(distance, q)


def _votes(
    statistics: ClassStatistics, features: NDArray[np.floating], config: PlarConfig
) -> ClassScores:
    found = knn.class_scores(
        torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)),
        open_operands(statistics, config),
        backend=config.knn_backend,
        chunk_pixels=config.chunk_pixels,
    )
    return ClassScores(found.distance.numpy(), found.q.numpy())
