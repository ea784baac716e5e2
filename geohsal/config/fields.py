"""What the fields of settings are made of."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]

BUDGETS = "200regions, 1.5ha, 0.5km2, 5000m2, 2%, 30000px or 45min"
"""How budgets are written; what they mean for a run is known to `geohsal.geo.budget`."""

BUDGET_PATTERN = r"([0-9]+(?:\.[0-9]+)?) ?(regions|region|m2|ha|km2|%|px|min)"


def _budget(text: str) -> str:
    if not re.fullmatch(BUDGET_PATTERN, text.strip()):
        raise ValueError(f"must be a number with a unit, such as {BUDGETS}")
    return text


BudgetText = Annotated[str, AfterValidator(_budget)]
