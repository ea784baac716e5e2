"""What earlier rounds' answers prove about PLAR, and how the pool's class shares weigh in."""

from dataclasses import replace

import numpy as np

from geohsal.config import EmdConfig, PlarConfig, SslConfig
from geohsal.kernels.plar import NO_CLASS
from geohsal.refine.calibration import calibrate, weigh_classes
from geohsal.refine.class_scores import class_scores
from geohsal.refine.statistics import fit_statistics
from geohsal.refine.track_record import TrackRecord, join, record_of, suspects_of

PLAR = PlarConfig()


def _flips(*, right: int, wrong: int, to: int, regions: int, lead: float) -> TrackRecord:
    """Flips of class 0 to another: `right` where the person agreed, `wrong` where class 0 stood."""
    count = right + wrong
    return TrackRecord(
        label=np.r_[np.full(right, to), np.zeros(wrong, dtype=np.int64)],
        teacher=np.zeros(count, dtype=np.int64),
        chosen=np.full(count, to),
        lead=np.full(count, lead),
        region=np.arange(count) % regions,
    )


def _calibrated(pixels, statistics, earlier=None):
    return calibrate(
        pixels,
        statistics,
        num_classes=4,
        plar=PLAR,
        ssl=SslConfig(),
        emd=EmdConfig(),
        seed=0,
        earlier=earlier,
    )


def test_answers_to_earlier_rounds_decide_who_abstains(make_world, label_world):
    # a perfect teacher leaves no withheld flips: without other evidence every class abstains
    pixels = label_world(make_world(0, classes=4), known=4, wrong=0.0)
    statistics = fit_statistics(pixels, num_classes=4, config=PLAR, seed=0)
    assert all(switch.on for switch in _calibrated(pixels, statistics).abstain)
    earlier = join(
        [
            _flips(right=90, wrong=2, to=1, regions=8, lead=1e3),
            _flips(right=40, wrong=60, to=2, regions=8, lead=1e3),
            _flips(right=95, wrong=5, to=3, regions=2, lead=1e3),  # pixels enough, regions not
        ]
    )
    abstain = _calibrated(pixels, statistics, earlier).abstain
    assert [switch.on for switch in abstain] == [True, False, True, True]
    assert abstain[1].reason == "90 right and 2 wrong flips in 8 unseen regions"
    assert abstain[3].reason == "95 right and 5 wrong flips in 2 unseen regions"


def test_the_margin_is_where_flips_become_precise(make_world, label_world):
    pixels = label_world(make_world(0, classes=4), known=4, wrong=0.0)
    statistics = fit_statistics(pixels, num_classes=4, config=PLAR, seed=0)
    earlier = join(
        [
            _flips(right=400, wrong=0, to=1, regions=8, lead=9.0),
            _flips(right=100, wrong=300, to=1, regions=8, lead=3.0),
        ]
    )
    thresholds = _calibrated(pixels, statistics, earlier)
    precise = thresholds.margin[1]
    assert precise.value >= 9.0 * thresholds.temperature.value - 1e-9
    assert "unseen flips in 16 regions" in precise.reason


def test_regions_of_two_records_stay_apart() -> None:
    one = _flips(right=3, wrong=0, to=1, regions=3, lead=1.0)
    both = join([one, one])
    assert both.region.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(join([])) == 0


def test_the_record_holds_suspects_only_and_no_class_for_the_refused(make_world, label_world):
    world = make_world(1, classes=4)
    seen = label_world(world, known=4)
    new = label_world(world, known=4)
    statistics = fit_statistics(seen, num_classes=4, config=PLAR, seed=0)
    thresholds = _calibrated(seen, statistics)
    far = replace(new, features=new.features + np.float32(1e3))
    record, refused = (record_of(p, statistics, thresholds, PLAR) for p in (new, far))
    assert len(record) == suspects_of(new, thresholds).sum() > 0
    assert (refused.chosen == NO_CLASS).all()
    flips = record.flips()
    assert (flips.chosen != flips.teacher).all()
    assert (flips.chosen == flips.label).mean() > 0.9


def test_shares_count_in_units_of_the_temperature(make_world, label_world):
    pixels = label_world(make_world(2, classes=4), known=4)
    plain = fit_statistics(pixels, num_classes=4, config=PLAR, seed=0)
    shares = np.log(np.array([0.7, 0.1, 0.1, 0.1]))
    weighed = weigh_classes(plain, pixels, shares, config=PLAR, seed=0)
    before, after = (class_scores(s, pixels.features, PLAR).q for s in (plain, weighed))
    moved = before - after
    heat = weighed.log_prior[0] / shares[0]
    assert heat >= 1
    np.testing.assert_allclose(moved, np.broadcast_to(2 * heat * shares, moved.shape), atol=1e-9)
    assert (after.argmin(1) == 0).sum() > (before.argmin(1) == 0).sum()
