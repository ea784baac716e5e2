"""What losses are divided by where the crops of a step are shared out among processes.

DDP makes the gradient the mean of the processes' gradients. A process therefore divides its sums
by (pixels of all processes / number of processes). So the supervised loss and the unsupervised ones
have the gradient that one process would give them on all crops of the step, however unequal the
shares are. Two losses are no plain sums over pixels: the error mask's is the mean of the losses of
those processes whose crops hold withheld pixels, the contrastive one's the mean over all processes,
each comparing its own pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geohsal.geo.states import IGNORE_INDEX
from geohsal.training.pseudo_labels import Streams
from geohsal.training.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Divisors of the supervised loss and of each view's; None: the pixels at hand.

    `error_scale` multiplies the error mask's loss.
    """

    labelled: Tensor | None
    views: tuple[Tensor | None, ...]
    error_scale: Tensor | float


def count_pixels(
    ranks: Ranks, *, labels: Tensor, withheld: Tensor, streams: Streams | None
) -> Counts:
    """Divisors for one step; every process asks, whatever its crops hold.

    Args:
        ranks: the processes.
        labels: (batch, height, width), 255 where nothing is labelled.
        withheld: the same, of the error mask's labels.
        streams: the unlabelled views, equally many on all processes.
    """
    views = () if streams is None else streams.views
    if ranks.world == 1:
        return Counts(labelled=None, views=(None,) * len(views), error_scale=1.0)
    own = [
        (labels != IGNORE_INDEX).sum(),
        (withheld != IGNORE_INDEX).any(),
        *(view.counted.sum() for view in views),
    ]
    labelled, erring, *counted = ranks.total(torch.stack([one.double() for one in own]))
    return Counts(
        labelled=labelled.clamp_min(1) / ranks.world,
        views=tuple(one.clamp_min(1) / ranks.world for one in counted),
        error_scale=ranks.world / erring.clamp_min(1),
    )
