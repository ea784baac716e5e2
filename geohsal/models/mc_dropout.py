"""Monte-Carlo dropout of a segmentation head: how far draws of its weights disagree (BALD).

Dropout falls on the features before the head (Gal & Ghahramani 2016; mutual information: Houlsby
et al. 2011, Gal et al. 2017). Whole channels drop, and a draw holds for every pixel of every
scene: each pass is one network, so pixels are compared under the same draws, and windows, chunks
and processes change nothing. Encoder and decoder run once for all passes.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geohsal.models.error_mask import normalised_entropy


def dropout_masks(passes: int, channels: int, *, share: float, seed: int) -> Tensor:
    """(pass, channel): 0 with probability `share`, else 1 / (1 - share), so that means stay."""
    kept = np.random.default_rng([seed, passes, channels]).random((passes, channels)) >= share
    return torch.from_numpy(kept / (1.0 - share)).float()


def mutual_information(features: Tensor, head: nn.Conv2d, masks: Tensor) -> Tensor:
    """Entropy of the mean prediction minus the mean entropy: (batch, row, col) in [0, 1].

    Args:
        features: (batch, channel, row, col) before the head.
        head: a 1x1 convolution.
        masks: (pass, channel), see `dropout_masks`.
    """
    masks = masks.to(features)
    shape = (features.shape[0], head.out_channels, *features.shape[2:])
    mean = features.new_zeros(shape, dtype=torch.float32)
    doubt = torch.zeros_like(mean[:, 0])
    for mask in masks:
        logits = F.conv2d(features, head.weight * mask[None, :, None, None], head.bias)
        probabilities = logits.float().softmax(dim=1)
        mean += probabilities
        doubt += normalised_entropy(probabilities)
    return (normalised_entropy(mean / len(masks)) - doubt / len(masks)).clamp_min(0.0)
