"""Optimiser and learning-rate schedule of a round."""

from typing import Any

import torch
from torch import nn

from geohsal.config import TrainConfig


def make_optimiser(networks: nn.Module, config: TrainConfig, *, steps: int) -> dict[str, Any]:
    """SGD or AdamW with a slower encoder and polynomial decay, as Lightning takes them.

    Args:
        networks: what has gradients is optimised.
        config: optimiser and rates.
        steps: of the round.
    """
    optimizer: torch.optim.Optimizer
    groups = _parameter_groups(networks, config)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: max(1.0 - step / steps, 1.0 / steps) ** config.poly_power
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": schedule, "interval": "step"},
    }


def _parameter_groups(networks: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    slow: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    for name, parameter in networks.named_parameters():
        if not parameter.requires_grad:
            continue
        (slow if ".encoder." in f".{name}" else fast).append(parameter)
    return [
        {"params": fast, "lr": config.lr},
        {"params": slow, "lr": config.lr * config.encoder_lr_scale},
    ]
