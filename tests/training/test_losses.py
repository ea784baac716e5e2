import math

import pytest
import torch

from geohsal.training.losses import (
    class_weights,
    error_mask_loss,
    supervised_loss,
    unsupervised_weight,
    weighted_pseudo_loss,
)


def test_unlabelled_pixels_enter_neither_sum_nor_denominator() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.full((2, 4, 4), 255)
    labels[0, 0, :2] = torch.tensor([1, 2])
    expected = torch.nn.functional.cross_entropy(logits[0, :, 0, :2].T, torch.tensor([1, 2]))
    assert supervised_loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_batch_without_labels_gives_zero_with_a_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = supervised_loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_masked_pixels_stay_in_the_denominator() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    target = torch.zeros(1, 1, 4, dtype=torch.int64)
    weight = torch.tensor([[[1.0, 0.5, 0.0, 1.0]]])
    counted = torch.tensor([[[True, True, True, False]]])
    loss = weighted_pseudo_loss(logits, target, weight, counted)
    assert loss.item() == pytest.approx(1.5 * math.log(2) / 3)


def test_pseudo_loss_without_pixels_and_with_sentinels_is_zero() -> None:
    logits = torch.randn(1, 2, 2, 2)
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    target = torch.full((1, 2, 2), 255)
    ones = torch.ones(1, 2, 2)
    assert weighted_pseudo_loss(logits, target, ones, nothing).item() == 0.0
    assert weighted_pseudo_loss(logits, target, ones, ~nothing).item() == 0.0


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (9, 0.0), (10, math.exp(-5)), (20, math.exp(-1.25)), (30, 1.0), (99, 1.0)],
)
def test_the_ramp_starts_after_the_warm_up(step: int, expected: float) -> None:
    weight = unsupervised_weight(step, total=100, warm_share=0.1, ramp_share=0.2, maximum=1.0)
    assert weight == pytest.approx(expected)


def test_error_mask_learns_where_predictions_are_wrong_and_only_on_withheld_labels() -> None:
    predicted = torch.zeros(1, 1, 4, dtype=torch.int64)
    labels = torch.tensor([[[0, 1, 255, 255]]])
    good = torch.tensor([[[-9.0, 9.0, 9.0, -9.0]]])
    assert error_mask_loss(good, predicted, labels, dice=0.0).item() < 1e-3
    assert error_mask_loss(-good, predicted, labels, dice=0.0).item() > 8
    assert error_mask_loss(good, predicted, torch.full_like(labels, 255), dice=1.0).item() == 0.0


def test_error_mask_weighs_right_and_wrong_within_a_class_by_their_roots() -> None:
    predicted = torch.zeros(1, 1, 10, dtype=torch.int64)
    labels = torch.zeros(1, 1, 10, dtype=torch.int64)
    labels[..., 0] = 1  # one error among ten
    logits = torch.zeros(1, 1, 10)
    logits[..., 0] = -2.0
    right, wrong = 9 / math.sqrt(9), 1.0
    expected = (right * math.log(2) + wrong * math.log1p(math.exp(2.0))) / (right + wrong)
    assert error_mask_loss(logits, predicted, labels, dice=0.0).item() == pytest.approx(expected)


def test_a_class_of_one_pixel_does_not_lead_and_one_without_labels_breaks_nothing() -> None:
    counts = torch.tensor([1_000_000, 1000, 1, 0])
    weights = class_weights(counts, "inverse")
    assert weights is not None
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)
    assert weights[2] == weights[1]  # both are cut
    assert weights[2] / weights[0] == pytest.approx(10 / (1 / 3), rel=0.01)  # not a million
    assert weights[3] == 0
    logits = torch.zeros(1, 4, 1, 4, requires_grad=True)
    labels = torch.tensor([[[0, 1, 2, 255]]])
    loss = supervised_loss(logits, labels, weights)
    loss.backward()
    assert loss.item() == pytest.approx(float(weights.sum()) * math.log(4) / 3, rel=1e-4)
    assert logits.grad is not None
    assert (logits.grad[0, 3, 0, :3] > 0).all()  # it is learned that the class is not there
    nothing = class_weights(torch.zeros(3, dtype=torch.int64), "sqrt")
    assert nothing is not None
    assert nothing.tolist() == [0, 0, 0]


def test_class_weights_have_mean_one_over_the_labelled_pixels() -> None:
    counts = torch.tensor([100, 25, 0])
    weights = class_weights(counts, "sqrt")
    assert weights is not None
    assert weights[1] / weights[0] == pytest.approx(2.0)
    assert weights[2] == 0
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)
    assert class_weights(counts, "none") is None
