"""The collapse guard: symptoms of a semi-supervised run that has stopped learning."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geohsal.config import SslConfig

logger = logging.getLogger(__name__)


class CollapseGuard:
    """Counts per part of a round; warns in the log and keeps the warnings for metrics.json."""

    def __init__(self, config: SslConfig, class_names: Sequence[str]) -> None:
        self._config = config
        self._names = tuple(class_names)
        self.warnings: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self._pixels = 0
        self._disagree = 0.0
        self._has_friend = False
        self._targets: Tensor | None = None

    def see(self, *, teacher: Tensor, target: Tensor, disagree: Tensor, has_friend: bool) -> None:
        """Take note of one batch of unlabelled pixels.

        Args:
            teacher: class ids of all counted pixels.
            target: refined labels of those that enter the loss.
            disagree: 1 where teacher and friend differ, of all counted pixels.
            has_friend: whether there is a friend to disagree.
        """
        self._pixels += teacher.numel()
        self._disagree += float(disagree.sum())
        self._has_friend = has_friend
        counts = torch.bincount(target.flatten(), minlength=len(self._names)).cpu()
        self._targets = counts if self._targets is None else self._targets + counts

    def close_part(self, *, step: int, unsupervised: float | None) -> dict[str, float]:
        """Judge the part that ends at `step`; gives the figures for the history."""
        figures: dict[str, float] = {}
        found: list[str] = []
        if self._pixels:
            if self._has_friend:
                rate = self._disagree / self._pixels
                figures["friend_disagreement"] = rate
                if rate < self._config.collapse_disagreement:
                    found.append(f"friend and teacher differ on only {rate:.2%} of pixels")
            if self._targets is not None and int(self._targets.sum()) > 0:
                used = int(self._targets.sum())
                share = float(self._targets.max()) / used
                figures["pseudo_label_share_used"] = used / self._pixels
                figures["largest_class_share"] = share
                if share > self._config.dominance:
                    winner = self._names[int(self._targets.argmax())]
                    found.append(f"{winner} is {share:.1%} of the pseudo-labels")
        if unsupervised is not None:
            if not math.isfinite(unsupervised):
                found.append(f"the unsupervised loss is {unsupervised}")
            elif unsupervised == 0.0:
                found.append("the unsupervised loss is 0: no pseudo-label passes its threshold")
        for text in found:
            message = f"step {step}: {text}"
            self.warnings.append(message)
            logger.warning("collapse guard: %s", message)
        self._reset()
        return figures

    def counts(self) -> dict[str, Any]:
        """What was seen since the last part ended, as plain values and a tensor."""
        return {
            "pixels": self._pixels,
            "disagree": self._disagree,
            "has_friend": self._has_friend,
            "targets": self._targets,
        }

    def take(self, counts: Sequence[dict[str, Any]]) -> None:
        """Hold the sum of some counts instead of the own ones: of all processes, or resumed."""
        self._pixels = sum(one["pixels"] for one in counts)
        self._disagree = sum(one["disagree"] for one in counts)
        self._has_friend = any(one["has_friend"] for one in counts)
        targets = [one["targets"] for one in counts if one["targets"] is not None]
        self._targets = torch.stack(targets).sum(dim=0) if targets else None
