"""Pixel contrast: pixels of a class look alike behind the projection head, others do not.

A form of InfoNCE with all drawn pixels of the same class as positives and all of other classes as
negatives. Work and memory are bounded by `MOST_PIXELS`, whatever the crops' size.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from geohsal.geo.states import IGNORE_INDEX

PIXELS_PER_CLASS = 64
"""Pixels drawn of a class and step, at most."""

MOST_PIXELS = 1024
"""Pixels drawn in a step, at most, however many classes there are."""

TEMPERATURE = 0.1
"""Divides cosines: the smaller, the more the nearest negatives count."""


def draw_pixels(labels: Tensor) -> Tensor:
    """Flat positions of equally many pixels per class, drawn by torch's global generator.

    Args:
        labels: (batch, height, width) class ids; 255 is never drawn.
    """
    flat = labels.flatten()
    found = flat.bincount(minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    classes = found.nonzero()[:, 0].tolist()
    share = max(1, min(PIXELS_PER_CLASS, MOST_PIXELS // max(1, len(classes))))
    drawn = [flat.new_zeros(0)]
    for number in classes:
        own = (flat == number).nonzero()[:, 0]
        drawn.append(own[torch.randperm(len(own))[:share].to(own.device)])
    return torch.cat(drawn)


def contrast_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE per positive pair, averaged per anchor, then per class, then over classes.

    A rare class counts as much as a common one. Anchors without another pixel of their class are
    left out; without two classes, or without any pair, the loss is 0.

    Args:
        embeddings: (pixel, channel), of any length.
        labels: (pixel,) class ids.
    """
    unit = F.normalize(embeddings.float(), dim=1)
    likeness = unit @ unit.T / TEMPERATURE
    same = labels[:, None] == labels[None, :]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    pairs = positive.sum(dim=1)
    anchor = (pairs > 0) & (~same).any(dim=1)
    if not bool(anchor.any()):
        return embeddings.sum() * 0.0
    rivals = likeness.masked_fill(same, -torch.inf).logsumexp(dim=1, keepdim=True)
    loss = (F.softplus(rivals - likeness) * positive).sum(dim=1)[anchor] / pairs[anchor]
    weight = 1.0 / labels.bincount()[labels[anchor]]
    return (loss * weight).sum() / weight.sum()
