"""Areas, label shares and spreads against numbers worked out by hand."""

import pytest

from geohsal.training.curves import area_under_curve, gain, share_reaching, spread


def test_the_area_is_the_mean_height_over_the_range_of_shares() -> None:
    # trapezoids: 0.01 * (0.2 + 0.4) / 2 + 0.03 * (0.4 + 0.5) / 2 = 0.003 + 0.0135 over 0.04
    assert area_under_curve([0.0, 0.01, 0.04], [0.2, 0.4, 0.5]) == pytest.approx(0.4125)
    assert area_under_curve([0.01, 0.02], [0.3, 0.3]) == pytest.approx(0.3)


def test_a_curve_without_a_range_has_the_mean_of_its_values() -> None:
    assert area_under_curve([0.02], [0.6]) == pytest.approx(0.6)
    assert area_under_curve([0.02, 0.02], [0.4, 0.6]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("target", "share"),
    [(0.1, 0.0), (0.2, 0.0), (0.3, 0.005), (0.4, 0.01), (0.45, 0.025), (0.5, 0.04), (0.51, None)],
)
def test_the_share_that_reaches_an_aim_lies_on_the_line(target: float, share: float | None) -> None:
    found = share_reaching([0.0, 0.01, 0.04], [0.2, 0.4, 0.5], target=target)
    assert found == (None if share is None else pytest.approx(share))


def test_the_first_crossing_counts_although_the_curve_falls_again() -> None:
    assert share_reaching([0, 1, 2, 3], [0.0, 0.4, 0.1, 0.6], target=0.2) == pytest.approx(0.5)


@pytest.mark.parametrize(("shares", "values"), [([], []), ([0, 1], [1]), ([1, 0], [1, 2])])
def test_what_is_no_curve_is_refused(shares: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="shares that do not fall"):
        area_under_curve(shares, values)


def test_spread_and_pooled_deviation() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.std, found.count) == (2.0, 1.0, 3)
    assert spread([4.0]).std == 0.0
    # variances 1 (two degrees of freedom) and 8 (one): (2 * 1 + 1 * 8) / 3
    over = gain([1.0, 2.0, 3.0], [0.0, 4.0])
    assert over.difference == pytest.approx(0.0)
    assert over.pooled_std == pytest.approx((10 / 3) ** 0.5)
    assert gain([1.0], [0.5]).pooled_std is None
    with pytest.raises(ValueError, match="no repetition"):
        spread([])
