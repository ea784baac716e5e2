"""Losses with guarded denominators: no labelled or no unlabelled pixel gives 0, never NaN."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from geohsal.geo.states import IGNORE_INDEX


def supervised_loss(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    *,
    count: Tensor | None = None,
) -> Tensor:
    """Cross-entropy on human pixels, divided by their number (method: TSF).

    Args:
        logits: (batch, class, height, width).
        labels: (batch, height, width); 255 enters neither sum nor denominator.
        class_weights: (class,) or None.
        count: what to divide by instead, where other processes hold pixels of the same step.
    """
    total = F.cross_entropy(
        logits.float(), labels, weight=class_weights, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / ((labels != IGNORE_INDEX).sum().clamp_min(1) if count is None else count)


def weighted_pseudo_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    counted: Tensor,
    *,
    count: Tensor | None = None,
) -> Tensor:
    """CE_w = sum w CE / #counted: masked pixels stay in the denominator (method: TSF).

    Args:
        logits: (batch, class, height, width) of a strong view.
        target: (batch, height, width) class ids; anything goes where the weight is 0.
        weight: (batch, height, width), at least 0.
        counted: (batch, height, width) bool, the valid unlabelled pixels.
        count: what to divide by instead, where other processes hold pixels of the same step.
    """
    usable = (weight > 0) & counted & (target != IGNORE_INDEX)
    safe = torch.where(usable, target, torch.full_like(target, IGNORE_INDEX))
    pixel = F.cross_entropy(logits.float(), safe, ignore_index=IGNORE_INDEX, reduction="none")
    total = (pixel * weight * usable).sum()
    return total / (counted.sum().clamp_min(1) if count is None else count)


def unsupervised_weight(
    step: int, *, total: int, warm_share: float, ramp_share: float, maximum: float
) -> float:
    """l_u(t) = l_max exp(-5 (1 - min(1, t/t_ramp))^2) after the warm-up, 0 during it."""
    warm = warm_share * total
    if step < warm:
        return 0.0
    ramp = ramp_share * total
    progress = 1.0 if ramp <= 0 else min(1.0, (step - warm) / ramp)
    return maximum * math.exp(-5.0 * (1.0 - progress) ** 2)


def error_mask_loss(
    error_logits: Tensor, predicted: Tensor, labels: Tensor, *, dice: float
) -> Tensor:
    """BCE on withheld pixels, balanced within each predicted class, then averaged (method: EMD).

    Right and wrong pixels of a predicted class weigh 1/sqrt(their number), so that a rare class
    is no synonym of an error.

    Args:
        error_logits: (batch, height, width).
        predicted: (batch, height, width) the teacher's class.
        labels: (batch, height, width) withheld labels, 255 elsewhere.
        dice: weight of an added soft-Dice loss.
    """
    known = labels != IGNORE_INDEX
    if not bool(known.any()):
        return error_logits.sum() * 0.0
    logit, guess = error_logits[known].float(), predicted[known]
    wrong = (guess != labels[known]).float()
    pixel = F.binary_cross_entropy_with_logits(logit, wrong, reduction="none")
    losses = []
    for class_id in sorted(set(guess.tolist())):
        own = guess == class_id
        count_wrong = wrong[own].sum()
        count_right = own.sum() - count_wrong
        weight = torch.where(
            wrong[own] > 0,
            count_wrong.clamp_min(1).rsqrt(),
            count_right.clamp_min(1).rsqrt(),
        )
        losses.append((pixel[own] * weight).sum() / weight.sum())
    loss = torch.stack(losses).mean()
    if dice > 0:
        probability = logit.sigmoid()
        overlap = 2.0 * (probability * wrong).sum() + 1.0
        loss = loss + dice * (1.0 - overlap / (probability.sum() + wrong.sum() + 1.0))
    return loss


def class_weights(counts: Tensor, mode: str) -> Tensor | None:
    """Loss weights by labelled pixels: 1/sqrt(n) or 1/n, mean 1 over the labelled pixels.

    A weight is cut at 10 times the mean before the mean is restored, so that a class of one pixel
    does not lead. A class without labels weighs 0: it has no pixel in the supervised loss.
    """
    if mode == "none":
        return None
    present = counts > 0
    power = 0.5 if mode == "sqrt" else 1.0
    weights = torch.where(present, counts.clamp_min(1).double() ** -power, torch.zeros(()).double())
    if not bool(present.any()):
        return weights.float()
    weights = (weights * counts.sum() / (weights * counts).sum()).clamp_max(10.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()
