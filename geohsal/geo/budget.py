"""Budgets as people write them: `200regions`, `1.5ha`, `0.5km2`, `2%`, `30000px`, `45min`."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from geohsal.config import BUDGET_PATTERN, BUDGETS
from geohsal.errors import BudgetError

BudgetUnit = Literal["regions", "m2", "pixels", "seconds"]

_PATTERN = re.compile(BUDGET_PATTERN)
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(%?)")
_SQUARE_METRES = {"m2": 1.0, "ha": 1e4, "km2": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An amount of one unit; `text` is what the user wrote."""

    amount: float
    unit: BudgetUnit
    text: str

    def cost(self, *, pixels: int, area_m2: float | None, seconds: float) -> float:
        """What one region costs in this budget's unit.

        Args:
            pixels: valid, not yet labelled pixels of the region.
            area_m2: their ground area; None for local scenes.
            seconds: by the cost model.

        Raises:
            BudgetError: the unit is ground area and the region has none.
        """
        if self.unit == "regions":
            return 1.0
        if self.unit == "pixels":
            return float(pixels)
        if self.unit == "seconds":
            return seconds
        if area_m2 is None:
            raise BudgetError(_no_ground(self.text))
        return area_m2

    def describe(self, amount: float) -> str:
        """An amount of this budget's unit, for people."""
        return amount_text(amount, self.unit)


def parse_budget(text: str, *, pool_pixels: int, local: bool = False) -> Budget:
    """A budget from its text.

    Args:
        text: a number and a unit.
        pool_pixels: all valid train pixels, fixed at tile time: what `%` refers to.
        local: True where scenes have no position on Earth: ground units then mean nothing.

    Raises:
        BudgetError: the text is no budget, or means nothing for these scenes.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise BudgetError(f"budget {text!r}: not a number with a unit; write {BUDGETS}")
    number, unit = float(match[1]), match[2]
    if not math.isfinite(number) or number <= 0:
        raise BudgetError(f"budget {text!r}: must be a number above 0; write {BUDGETS}")
    if unit in _SQUARE_METRES:
        if local:
            raise BudgetError(_no_ground(text))
        return Budget(amount=number * _SQUARE_METRES[unit], unit="m2", text=text)
    if unit == "min":
        return Budget(amount=number * 60.0, unit="seconds", text=text)
    if unit == "%":
        return Budget(amount=_percent(text, number, pool_pixels), unit="pixels", text=text)
    if number != int(number):
        raise BudgetError(f"budget {text!r}: {unit} are counted whole; write {BUDGETS}")
    return Budget(amount=number, unit="pixels" if unit == "px" else "regions", text=text)


def parse_share(text: str, *, name: str) -> float:
    """A share in [0, 1] from `10%` or `0.1`; `name` is the option's, for the message.

    Raises:
        BudgetError: the text is no share.
    """
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else math.nan
    if not 0 <= share <= 1:
        raise BudgetError(f"{name} {text!r}: not a share; write 10% or 0.1, at most 100%")
    return share


def amount_text(amount: float, unit: str) -> str:
    """An amount of a budget's unit, for people."""
    if unit == "seconds":
        return f"{amount / 60:.1f} min"
    if unit == "regions":
        return counted(round(amount), "region")
    return f"{amount:,.0f} {unit}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 region`, `1,200 regions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(text: str, number: float, pool_pixels: int) -> float:
    if number > 100:
        raise BudgetError(f"budget {text!r}: at most 100% of the valid train pixels")
    pixels = math.floor(number * pool_pixels / 100.0)
    if pixels < 1:
        raise BudgetError(
            f"budget {text!r}: less than one of the {pool_pixels} valid train pixels; give more"
        )
    return float(pixels)


def _no_ground(text: str) -> str:
    return (
        f"budget {text!r}: these scenes have no position on Earth, so ground area means nothing; "
        "write 200regions, 2%, 30000px or 45min"
    )
