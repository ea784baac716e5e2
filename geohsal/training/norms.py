"""Batch norms of several processes: one statistic on CUDA, a mean of running ones on CPUs.

On CUDA a batch norm sees the crops of all processes (SyncBatchNorm). Between CPUs there is no such
thing: each process normalises by its own crops, and after each step the running means and variances
become their mean over the processes, so that they are equal everywhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from geohsal.models.tsf import TeacherStudentFriend
from geohsal.training.ranks import Ranks

_convert: Callable[[Any], Any] = convert_sync_batchnorm  # also norms with activation

LOCAL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Norms that look at the crops of one process."""


def synchronised(
    networks: TeacherStudentFriend, *, ranks: Ranks, device: torch.device
) -> TeacherStudentFriend:
    """The networks with norms over all processes where there are several on CUDA devices."""
    if ranks.world > 1 and device.type == "cuda":
        networks.student = _convert(networks.student)
        if networks.friend is not None:
            networks.friend = _convert(networks.friend)
    return networks


def running_statistics(*networks: nn.Module | None) -> list[Tensor]:
    """Running means and variances of norms that look at the crops of one process."""
    return [
        buffer
        for network in networks
        if network is not None
        for module in network.modules()
        if isinstance(module, LOCAL)
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]


@torch.no_grad()
def average(buffers: Sequence[Tensor], ranks: Ranks) -> None:
    """Set buffers to their mean over the processes, in place and in one message."""
    if ranks.world == 1 or not buffers:
        return
    mean = ranks.total(torch.cat([buffer.flatten() for buffer in buffers])) / ranks.world
    sizes = [buffer.numel() for buffer in buffers]
    for buffer, value in zip(buffers, torch.split(mean, sizes), strict=True):
        buffer.copy_(value.view_as(buffer))
