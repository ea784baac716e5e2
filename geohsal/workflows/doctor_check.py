"""One line of the doctor."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "note", "bad"]
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line: `bad` breaks geohsal, `note` limits it; `advice` says what to do then."""

    name: str
    level: Level
    found: str
    advice: str = ""
