import pytest

from geohsal.config import config_from_dict
from geohsal.errors import BudgetError, ConfigError
from geohsal.geo.budget import counted, parse_budget, parse_share


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("200regions", 200, "regions"),
        ("1region", 1, "regions"),
        ("1.5ha", 15_000, "m2"),
        ("0.5km2", 500_000, "m2"),
        ("900m2", 900, "m2"),
        ("2%", 1999, "pixels"),
        ("30000px", 30_000, "pixels"),
        ("45min", 2700, "seconds"),
        (" 45 min ", 2700, "seconds"),
    ],
)
def test_budgets_as_people_write_them(text, amount, unit):
    budget = parse_budget(text, pool_pixels=99_999)
    assert (budget.amount, budget.unit, budget.text) == (amount, unit, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a number with a unit"),
        ("200", "not a number with a unit"),
        ("regions", "not a number with a unit"),
        ("-5regions", "not a number with a unit"),
        ("nanha", "not a number with a unit"),
        ("1e3px", "not a number with a unit"),
        ("5 hours", "not a number with a unit"),
        ("5regionsx", "not a number with a unit"),
        ("٣px", "not a number with a unit"),
        ("1,5ha", "not a number with a unit"),
        ("0regions", "must be a number above 0"),
        ("9" * 400 + "px", "must be a number above 0"),
        ("1.5regions", "counted whole"),
        ("1.5px", "counted whole"),
        ("101%", "at most 100%"),
        ("0.001%", "less than one of the 99 valid train pixels"),
    ],
)
def test_anything_else_is_refused_and_says_what_is_allowed(text, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        parse_budget(text, pool_pixels=99)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    if "%" not in text:
        assert "200regions, 1.5ha, 0.5km2" in str(caught.value)


@pytest.mark.parametrize("text", ["1.5ha", "0.5km2", "10m2"])
def test_ground_units_mean_nothing_on_local_grids(text):
    with pytest.raises(BudgetError, match="no position on Earth"):
        parse_budget(text, pool_pixels=100, local=True)
    assert parse_budget("50%", pool_pixels=100, local=True).amount == 50


def test_cost_of_a_region_is_in_the_budgets_unit():
    spend = {"pixels": 700, "area_m2": 630_000.0, "seconds": 25.0}
    costs = {
        unit: parse_budget(text, pool_pixels=10).cost(**spend)
        for unit, text in {"regions": "3regions", "m2": "1ha", "px": "9px", "s": "1min"}.items()
    }
    assert costs == {"regions": 1.0, "m2": 630_000.0, "px": 700.0, "s": 25.0}
    with pytest.raises(BudgetError, match="no position on Earth"):
        parse_budget("1ha", pool_pixels=10).cost(pixels=1, area_m2=None, seconds=1)


def test_amounts_are_described_in_their_unit():
    assert parse_budget("45min", pool_pixels=1).describe(90) == "1.5 min"
    assert parse_budget("1ha", pool_pixels=1).describe(1234.5) == "1,234 m2"
    assert parse_budget("5px", pool_pixels=1).describe(1200) == "1,200 pixels"


def test_a_bad_budget_in_the_settings_is_noticed_where_they_are_read():
    with pytest.raises(
        ConfigError, match=r"x: query\.budget: must be a number with a unit, such as"
    ):
        config_from_dict({"query": {"budget": "45 hours"}}, where="x")
    assert config_from_dict({"query": {"budget": "45 min"}}, where="x").query.budget == "45 min"


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.25", 0.25), (" 100 % ", 1.0), ("0", 0.0), ("2.5%", 0.025)]
)
def test_shares_as_people_write_them(text, share):
    assert parse_share(text, name="--overlap") == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "10", "-1%", "101%", "a tenth", "nan", "1.5"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(BudgetError, match=r"--overlap '.*': not a share; write 10% or 0\.1"):
        parse_share(text, name="--overlap")


def test_one_thing_is_not_many():
    assert [counted(n, "region") for n in (0, 1, 2, 1200)] == [
        "0 regions",
        "1 region",
        "2 regions",
        "1,200 regions",
    ]
