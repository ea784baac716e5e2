"""The shift of the logits at a refresh."""

import numpy as np
import pytest
import torch

from geohsal.config import PriorConfig, config_from_dict
from geohsal.models.tsf import InferenceNetworks, build_inference_networks
from geohsal.refine.priors import AnsweredRound
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.pool_priors import PriorTracker, unshifted

CLASSES = 3


def networks() -> InferenceNetworks:
    values = {"arch": "unet", "encoder": "tu-resnet10t", "encoder_depth": 3, "decoder_channels": 8}
    config = config_from_dict({"model": values, "ssl": {"friend": "none"}}, where="test")
    return build_inference_networks(config, bands=2, classes=CLASSES).eval()


def labelled(probabilities: np.ndarray, weight: np.ndarray) -> LabelledPixels:
    count = len(probabilities)
    return LabelledPixels(
        features=np.zeros((count, 2), dtype=np.float32),
        label=np.arange(count) % CLASSES,
        region=np.arange(count),
        withheld=np.zeros(count, dtype=np.bool_),
        teacher=probabilities.argmax(1),
        confidence=probabilities.max(1),
        error=np.zeros(count),
        probabilities=probabilities.astype(np.float32),
        weight=weight,
    )


def never(_: InferenceNetworks) -> np.ndarray:
    raise AssertionError("the pool is looked at by source em alone")


def test_no_answers_no_shift() -> None:
    own = networks()
    tracker = PriorTracker(config=PriorConfig(), rounds=[], look_at_pool=never)
    pixels = labelled(np.full((6, CLASSES), 1 / CLASSES), np.ones(6))
    same = tracker.update(own, pixels)
    np.testing.assert_allclose(same.probabilities, pixels.probabilities)
    assert own.prior_shift.tolist() == [0.0] * CLASSES
    assert tracker.log_share() is None


@pytest.mark.parametrize(
    ("source", "can"), [("none", False), ("answers", False), ("uniform", True), ("em", True)]
)
def test_whether_a_shift_is_possible_is_known_without_a_look(source: str, can: bool) -> None:
    config = config_from_dict({"prior": {"source": source}}, where="test").prior
    assert PriorTracker(config=config, rounds=[], look_at_pool=never).can_shift(CLASSES) is can


def test_even_shares_need_no_answers_and_no_look_at_the_pool() -> None:
    own = networks()
    config = PriorConfig(source="uniform", strength=1.0)
    tracker = PriorTracker(config=config, rounds=[], look_at_pool=never)
    taught = np.array([0.6, 0.3, 0.1])
    seen = tracker.update(own, labelled(np.tile(taught, (4, 1)), np.ones(4)))
    assert tracker.shift[0] < tracker.shift[1] < tracker.shift[2]
    np.testing.assert_allclose(own.prior_shift.numpy(), tracker.shift, rtol=1e-5)
    np.testing.assert_allclose(seen.probabilities, 1 / CLASSES, atol=0.01)  # the floor of shares
    # done again it stays, since what was taught is measured without the shift
    before = tracker.shift
    tracker.update(own, seen)
    np.testing.assert_allclose(tracker.shift, before, atol=1e-6)
    share = tracker.log_share()
    assert share is not None
    assert np.ptp(share) == 0  # refinement weighs all classes alike


def test_the_shift_leads_from_what_was_taught_to_the_pool_and_moves_every_output() -> None:
    own = networks()
    rounds = [
        AnsweredRound(
            predicted=np.array([900, 50, 50]),
            answered=np.diag([900, 50, 50]).astype(np.int64),
            regions=20,
        )
    ]
    tracker = PriorTracker(config=PriorConfig(strength=1.0), rounds=rounds, look_at_pool=never)
    image = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = own(image).logits
    even = np.array([0.25, 0.25, 0.5])
    seen = tracker.update(own, labelled(np.tile(even, (4, 1)), np.array([1.0, 1.0, 2.0, 1.0])))
    np.testing.assert_allclose(tracker.taught, [0.25, 0.25, 0.5])
    with torch.no_grad():
        after = own(image).logits
    moved = (after - before)[0].mean((1, 2))
    np.testing.assert_allclose(moved, tracker.shift, atol=1e-5)
    assert tracker.shift[0] > tracker.shift[1] > tracker.shift[2]
    # labelled pixels look the same through the networks and by arithmetic
    expected = even * np.exp(tracker.shift)
    np.testing.assert_allclose(seen.probabilities[0], expected / expected.sum(), rtol=1e-5)
    assert (seen.teacher == expected.argmax()).all()
    # what the shifted network says, unshifted, is what it said before
    np.testing.assert_allclose(
        unshifted(after.softmax(1)[0].flatten(1).T.numpy(), tracker.shift),
        before.softmax(1)[0].flatten(1).T.numpy(),
        atol=1e-5,
    )


def test_em_looks_at_the_pool() -> None:
    looks = []

    def look(_: InferenceNetworks) -> np.ndarray:
        looks.append(1)
        return np.tile(np.array([[0.9, 0.05, 0.05]], dtype=np.float32), (50, 1))

    tracker = PriorTracker(config=PriorConfig(source="em"), rounds=[], look_at_pool=look)
    tracker.update(networks(), labelled(np.full((6, CLASSES), 1 / CLASSES), np.ones(6)))
    assert looks == [1]
    assert tracker.priors.share is not None
    assert tracker.priors.share[0] == pytest.approx(tracker.priors.share.max())
