import logging

import pytest
import torch

from geohsal.config import SslConfig
from geohsal.training.guard import CollapseGuard

NAMES = ("water", "forest", "town")


def see(guard: CollapseGuard, *, target: list[int], differ: int, pixels: int = 1000) -> None:
    disagree = torch.zeros(pixels)
    disagree[:differ] = 1
    guard.see(
        teacher=torch.zeros(pixels, dtype=torch.int64),
        target=torch.tensor(target),
        disagree=disagree,
        has_friend=True,
    )


def test_a_healthy_part_says_nothing() -> None:
    guard = CollapseGuard(SslConfig(), NAMES)
    see(guard, target=[0, 1, 2, 1], differ=100)
    figures = guard.close_part(step=10, unsupervised=0.4)
    assert guard.warnings == []
    assert figures["friend_disagreement"] == pytest.approx(0.1)
    assert figures["largest_class_share"] == pytest.approx(0.5)
    assert figures["pseudo_label_share_used"] == pytest.approx(0.004)


@pytest.mark.parametrize(
    ("target", "differ", "loss", "message"),
    [
        ([0, 1], 5, 0.4, "friend and teacher differ on only 0.50% of pixels"),
        ([2] * 99 + [0], 100, 0.4, "town is 99.0% of the pseudo-labels"),
        ([0, 1], 100, float("nan"), "the unsupervised loss is nan"),
        ([0, 1], 100, 0.0, "the unsupervised loss is 0: no pseudo-label passes"),
    ],
)
def test_each_symptom_is_named_in_log_and_metrics(
    caplog: pytest.LogCaptureFixture, target: list[int], differ: int, loss: float, message: str
) -> None:
    guard = CollapseGuard(SslConfig(), NAMES)
    see(guard, target=target, differ=differ)
    with caplog.at_level(logging.WARNING, logger="geohsal"):
        guard.close_part(step=7, unsupervised=loss)
    assert len(guard.warnings) == 1
    assert guard.warnings[0].startswith(f"step 7: {message}")


def test_counts_of_several_processes_judge_like_one_that_saw_everything() -> None:
    parts = [CollapseGuard(SslConfig(), NAMES) for _ in range(3)]
    see(parts[0], target=[0, 1], differ=5)
    see(parts[2], target=[2, 2, 2], differ=1)
    whole = CollapseGuard(SslConfig(), NAMES)
    see(whole, target=[0, 1], differ=5)
    see(whole, target=[2, 2, 2], differ=1)
    merged = CollapseGuard(SslConfig(), NAMES)
    merged.take([part.counts() for part in parts])
    assert merged.close_part(step=3, unsupervised=None) == whole.close_part(
        step=3, unsupervised=None
    )
    assert merged.warnings == whole.warnings
    assert merged.warnings


def test_a_part_without_unlabelled_pixels_says_nothing() -> None:
    guard = CollapseGuard(SslConfig(), NAMES)
    assert guard.close_part(step=1, unsupervised=None) == {}
    assert guard.warnings == []
