import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geohsal.data.index import (
    PIXELS_KEPT,
    LabelledPixels,
    LabelledRegion,
    error_keys,
    find_regions,
    withheld_keys,
)


def region(scene: str, number: int, class_id: int) -> LabelledRegion:
    return LabelledRegion(
        key=f"{scene}#{number}",
        scene_id=scene,
        number=number,
        counts={class_id: 5},
        pixels=np.zeros((1, 2), np.int32),
        classes=np.array([class_id], np.uint8),
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), cut=st.integers(1, 40))
def test_regions_do_not_depend_on_the_strips(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (40, 17)).astype(np.uint8)
    labels[rng.random((40, 17)) < 0.3] = 255
    numbers = rng.integers(0, 4, (40, 17)).astype(np.int32)
    strips = [
        LabelledPixels.of(labels[row : row + cut], numbers[row : row + cut], row=row)
        for row in range(0, 40, cut)
    ]
    whole = find_regions("s", LabelledPixels.of(labels, numbers), seed=1)
    parts = find_regions("s", LabelledPixels.joined(strips[::-1]), seed=1)
    assert [r.key for r in whole] == [r.key for r in parts]
    for one, other in zip(whole, parts, strict=True):
        assert one.counts == other.counts
        assert np.array_equal(one.pixels, other.pixels)
        at = labels[one.pixels[:, 0], one.pixels[:, 1]]
        assert np.array_equal(at, one.classes)
        assert (numbers[one.pixels[:, 0], one.pixels[:, 1]] == one.number).all()
        for class_id, count in one.counts.items():
            assert count == ((labels == class_id) & (numbers == one.number)).sum()
            assert (one.classes == class_id).sum() == min(count, PIXELS_KEPT)


def test_nothing_labelled_gives_no_region() -> None:
    labels = np.full((4, 4), 255, np.uint8)
    assert find_regions("s", LabelledPixels.of(labels, np.ones((4, 4), np.int32)), seed=0) == []


def test_folds_rotate_cover_everything_and_leave_every_class_something() -> None:
    regions = [region("a", n, n % 3) for n in range(1, 31)] + [region("b", 1, 7)]
    folds = [withheld_keys(regions, share=0.2, round_index=r, seed=0) for r in range(5)]
    assert sum(len(fold) for fold in folds) == 30
    assert len(frozenset().union(*folds)) == 30
    assert "b#1" not in frozenset().union(*folds)  # the only region of its class
    assert folds[0] == withheld_keys(regions[::-1], share=0.2, round_index=0, seed=0)
    assert folds[0] == withheld_keys(regions, share=0.2, round_index=5, seed=0)
    assert withheld_keys(regions, share=0.0, round_index=0, seed=0) == frozenset()


def test_too_few_to_prove_anything_are_not_withheld() -> None:
    regions = [region("a", n, n % 3) for n in range(1, 31)]
    for round_index in range(5):
        fold = withheld_keys(regions, share=0.2, round_index=round_index, seed=0)
        assert fold
        for fewest, expected in ((6, fold), (7, frozenset())):
            found = withheld_keys(
                regions, share=0.2, round_index=round_index, seed=0, fewest=fewest
            )
            assert found == expected


def test_half_of_the_withheld_regions_teach_the_error_mask() -> None:
    withheld = frozenset(f"a#{n}" for n in range(9))
    learn = error_keys(withheld, seed=0)
    assert learn < withheld
    assert len(learn) == 5
