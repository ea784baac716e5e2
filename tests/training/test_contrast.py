import math

import pytest
import torch

from geohsal.training.contrast import (
    MOST_PIXELS,
    PIXELS_PER_CLASS,
    TEMPERATURE,
    contrast_loss,
    draw_pixels,
)


def test_one_pair_and_one_rival_by_hand() -> None:
    embeddings = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    loss = contrast_loss(embeddings, torch.tensor([1, 1, 4]))
    expected = math.log1p(math.exp((0.0 - 1.0) / TEMPERATURE))  # cosines 1 and 0
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_classes_apart_lose_less_than_classes_mixed() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(10)
    apart = torch.eye(3)[labels] + 0.1 * torch.randn(30, 3, generator=generator)
    assert contrast_loss(apart, labels) < 0.1 * contrast_loss(apart, labels[torch.randperm(30)])


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    rare = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # a pair that looks nothing alike
    common = torch.tensor([[0.6, -0.8]])
    few = contrast_loss(torch.cat([rare, common.repeat(3, 1)]), torch.tensor([0, 0, 1, 1, 1]))
    many = contrast_loss(torch.cat([rare, common.repeat(300, 1)]), torch.tensor([0, 0] + [1] * 300))
    assert many.item() > 0.9 * few.item()


@pytest.mark.parametrize("labels", [[2, 2, 2], [0, 1, 2], []], ids=["one class", "no pair", "none"])
def test_nothing_to_compare_is_zero_with_a_gradient(labels: list[int]) -> None:
    embeddings = torch.randn(len(labels), 4, requires_grad=True)
    loss = contrast_loss(embeddings, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_draws_are_balanced_bounded_and_seeded() -> None:
    labels = torch.full((2, 64, 64), 255)
    labels[0] = 7
    labels[1, 0, :3] = 2
    torch.manual_seed(5)
    drawn = draw_pixels(labels)
    assert labels.flatten()[drawn].bincount().tolist() == [0, 0, 3, 0, 0, 0, 0, PIXELS_PER_CLASS]
    assert len(drawn.unique()) == len(drawn)
    torch.manual_seed(5)
    assert torch.equal(draw_pixels(labels), drawn)
    assert len(draw_pixels(torch.full((1, 4, 4), 255))) == 0
    many = torch.arange(200).repeat_interleave(50).view(1, 100, 100)
    assert len(draw_pixels(many)) == 200 * (MOST_PIXELS // 200)
