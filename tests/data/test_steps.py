"""The samples of a step are the same for any number of processes, and after any resume."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from geohsal.data.steps import StepSampler, share_of

COUNTS, WORLDS = st.integers(0, 40), st.integers(1, 9)


@given(COUNTS, WORLDS)
def test_shares_are_everything_in_order_and_nearly_equal(count: int, world: int) -> None:
    shares = [share_of(count, rank=rank, world=world) for rank in range(world)]
    assert [number for share in shares for number in share] == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 9), st.integers(0, 6), WORLDS)
def test_a_step_takes_the_same_samples_whoever_trains(batch: int, first: int, world: int) -> None:
    whole = list(StepSampler(batch=batch, first=0, steps=6))
    split = [
        list(StepSampler(batch=batch, first=first, steps=6, rank=rank, world=world))
        for rank in range(world)
    ]
    resumed = [list(chain(*parts)) for parts in zip(*split, strict=True)]
    assert resumed == whole[first:]
    assert list(chain(*whole)) == list(range(6 * batch))


def test_length_is_the_steps_that_are_left() -> None:
    assert len(StepSampler(batch=3, first=4, steps=10)) == 6
    assert len(StepSampler(batch=3, first=10, steps=10)) == 0
