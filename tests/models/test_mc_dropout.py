"""BALD: mutual information against a plain reference, its bounds, masks that repeat."""

import numpy as np
import pytest
import torch
from torch import nn

from geohsal.models.mc_dropout import dropout_masks, mutual_information


@pytest.fixture
def head() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(12, 4, 1)


@torch.no_grad()
def test_information_is_entropy_of_the_mean_minus_mean_entropy(head: nn.Conv2d) -> None:
    features = torch.randn(2, 12, 5, 3)
    masks = dropout_masks(6, 12, share=0.3, seed=1)
    found = mutual_information(features, head, masks)
    weight = head.weight[:, :, 0, 0].double().numpy()
    bias = head.bias.double().numpy()  # type: ignore[union-attr]
    for batch, row, col in np.ndindex(2, 5, 3):
        dropped = features[batch, :, row, col].double().numpy() * masks.double().numpy()
        logits = dropped @ weight.T + bias
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

        def entropy(q: np.ndarray) -> np.ndarray:
            return -(q * np.log(q)).sum(axis=-1) / np.log(4)

        expected = entropy(p.mean(axis=0)) - entropy(p).mean()
        assert float(found[batch, row, col]) == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_draws_that_agree_tell_nothing(head: nn.Conv2d) -> None:
    alike = torch.ones(5, 12)
    assert float(mutual_information(torch.randn(1, 12, 4, 4), head, alike).max()) < 1e-6
    nothing = torch.zeros(1, 12, 4, 4)
    masks = dropout_masks(5, 12, share=0.5, seed=0)
    assert float(mutual_information(nothing, head, masks).max()) < 1e-6
    one = nn.Conv2d(12, 1, 1)
    assert not mutual_information(torch.randn(1, 12, 4, 4), one, masks).any()


def test_masks_drop_their_share_and_keep_the_mean() -> None:
    masks = dropout_masks(400, 50, share=0.2, seed=0)
    assert set(masks.unique().tolist()) == {0.0, 1.25}
    assert float((masks == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(masks, dropout_masks(400, 50, share=0.2, seed=0))
    assert not torch.equal(masks, dropout_masks(400, 50, share=0.2, seed=1))
