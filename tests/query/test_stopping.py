"""Made-up histories: a rising run, a plateau, a noisy one, and too little evidence."""

import pytest

from geohsal.config import StopConfig, config_from_dict
from geohsal.errors import ConfigError
from geohsal.query.stopping import AuditError, StopEvidence, advise

CONFIG = StopConfig()


def audit(share: float, spread: float = 0.01, regions: int = 12) -> AuditError:
    return AuditError(share=share, low=max(share - spread, 0), high=share + spread, regions=regions)


PLATEAU = StopEvidence(
    changes=(0.12, 0.03, 0.004, 0.003),
    undecided=(0.10, 0.06, 0.05, 0.049, 0.05),
    val_miou=(0.60, 0.71, 0.74, 0.742, 0.741),
    audit=AuditError(share=0.031, low=0.02, high=0.045, regions=14),
    audit_before=audit(0.034),
)


def changed(**values) -> StopEvidence:
    names = StopEvidence.__dataclass_fields__
    return StopEvidence(**{name: getattr(PLATEAU, name) for name in names} | values)


def test_a_rising_run_goes_on_and_names_every_gain():
    found = advise(
        StopEvidence(
            changes=(0.2, 0.12, 0.08),
            undecided=(0.2, 0.15, 0.1, 0.07),
            val_miou=(0.5, 0.58, 0.64, 0.69),
            audit=audit(0.08),
            audit_before=audit(0.15),
        ),
        CONFIG,
    )
    assert found.verdict == "go on"
    assert found.expected_change == 0.12
    assert found.reasons == (
        "a round still changed 12.0 % of the map",
        "the audit error fell from 15.0 % to 8.0 %",
        "the mIoU on val rose by 0.110 in 2 rounds",
        "8.0 % fewer pixels are undecided than 2 rounds ago",
    )
    assert found.message.startswith("another round is worth it: a round still changed 12.0 %")
    assert found.message.endswith("; audit error 8.0 % (7.0-9.0)")


def test_a_plateau_may_stop_and_says_what_remains():
    found = advise(PLATEAU, CONFIG)
    assert found.verdict == "may stop"
    assert found.expected_change == 0.004
    assert found.message == (
        "another round is expected to change < 0.5 % of the map; audit error 3.1 % (2.0-4.5): "
        "you may stop"
    )


@pytest.mark.parametrize(
    ("sign", "word"),
    [
        ({"changes": (0.01, 0.002, 0.006)}, "changed 0.6 % of the map"),  # one quiet round
        ({"audit": audit(0.02), "audit_before": audit(0.05)}, "audit error fell"),
        ({"val_miou": (0.5, 0.6, 0.61, 0.615)}, "mIoU on val rose by 0.015"),
        ({"undecided": (0.10, 0.08, 0.06, 0.04)}, "4.0 % fewer pixels are undecided"),
    ],
)
def test_any_single_gain_is_enough_to_go_on(sign, word):
    found = advise(changed(**sign), CONFIG)
    assert found.verdict == "go on"
    assert len(found.reasons) == 1
    assert word in found.message


def test_a_noisy_run_is_not_taken_for_a_plateau():
    noisy = changed(
        changes=(0.05, 0.002, 0.04, 0.003, 0.05),
        val_miou=(0.60, 0.66, 0.61, 0.65, 0.62, 0.66),
        undecided=(0.05, 0.09, 0.04, 0.1, 0.06),
        audit=audit(0.06, spread=0.05),
        audit_before=audit(0.07, spread=0.05),
    )
    found = advise(noisy, CONFIG)
    assert found.verdict == "go on"
    assert found.reasons == ("a round still changed 5.0 % of the map",)


def test_a_fall_within_the_audits_own_doubt_is_no_gain():
    doubtful = changed(audit=audit(0.03, spread=0.04), audit_before=audit(0.05))
    assert advise(doubtful, CONFIG).verdict == "may stop"


@pytest.mark.parametrize(
    ("gap", "word"),
    [
        ({"changes": (0.004,)}, "1 of 2 changes of the map are known"),
        ({"changes": ()}, "0 of 2 changes of the map are known"),
        ({"audit": None}, "0 of 10 audit regions are answered in the last 2 rounds"),
        ({"audit": audit(0.03, regions=4)}, "4 of 10 audit regions"),
    ],
)
def test_too_little_evidence_says_so(gap, word):
    found = advise(changed(**gap), CONFIG)
    assert found.verdict == "cannot tell"
    assert found.message.startswith("cannot tell yet whether another round is worth it: ")
    assert word in found.message


def test_nothing_known_cannot_tell():
    found = advise(StopEvidence(), CONFIG)
    assert found.verdict == "cannot tell"
    assert len(found.reasons) == 2
    assert found.expected_change is None


def test_a_run_without_val_can_still_be_told_to_stop():
    assert advise(changed(val_miou=(), undecided=()), CONFIG).verdict == "may stop"


def test_settings_move_the_line():
    assert advise(PLATEAU, StopConfig(min_change=0.004)).verdict == "go on"
    assert advise(PLATEAU, StopConfig(rounds=3)).verdict == "go on"  # 3 % three rounds ago
    assert advise(PLATEAU, StopConfig(min_audit_regions=15)).verdict == "cannot tell"
    small = changed(val_miou=(0.740, 0.741, 0.742, 0.743))
    assert advise(small, StopConfig(min_gain=0.0005)).verdict == "go on"
    loaded = config_from_dict({"stop": {"rounds": 3, "min_gain": 0.01}}, where="test")
    assert loaded.stop == StopConfig(rounds=3, min_gain=0.01)
    with pytest.raises(ConfigError, match=r"stop\.rounds"):
        config_from_dict({"stop": {"rounds": 0}}, where="test")
