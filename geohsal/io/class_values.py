"""What a value of a label source means: a class id, unlabelled, or a mistake with a hint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geohsal.geo.scene import ClassInfo
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.manifest import LabelSource, LabelValue
from geohsal.io.manifest_text import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """A class id (255: unlabelled), or why the value means nothing."""

    class_id: int = IGNORE_INDEX
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassValues:
    """The values of one label source.

    `values` is None where raster values and numbers are class ids. Names of classes always mean
    themselves, in any case of letters, unless `values` or `ignore` says otherwise.
    """

    values: Mapping[LabelValue, int] | None
    ignore: frozenset[LabelValue | None]
    names: tuple[str, ...]

    def of_number(self, value: int) -> Meaning:
        """Meaning of a raster value or a whole number in a field."""
        if value in self.ignore or str(value) in self.ignore:
            return Meaning()
        mapped = self.values or {}
        for key in (value, str(value)):
            if key in mapped:
                return Meaning(class_id=mapped[key])
        if value == IGNORE_INDEX:
            return Meaning()
        if self.values is not None:
            return Meaning(problem=f"value {value} is not in values:")
        if 0 <= value < len(self.names):
            return Meaning(class_id=value)
        return Meaning(problem=f"value {value} is no class id (0 to {len(self.names) - 1})")

    def of_triple(self, value: tuple[int, int, int]) -> Meaning:
        """Meaning of an RGB triple."""
        if value in self.ignore:
            return Meaning()
        if self.values is not None and value in self.values:
            return Meaning(class_id=self.values[value])
        return Meaning(problem=f"colour {','.join(map(str, value))} is not in values:")

    def of_field(self, value: object) -> Meaning:
        """Meaning of a field's value: text, a number, or nothing."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return Meaning(problem=None if None in self.ignore else "no class given")
        if isinstance(value, str):
            return self._of_text(value.strip())
        number = _whole(value)
        if number is None:
            return Meaning(problem=f"value {value!r} is neither a class name nor a class id")
        return self.of_number(number)

    def _of_text(self, text: str) -> Meaning:
        folded = text.casefold()
        if not text:
            return self.of_field(None)
        if folded in {key.casefold() for key in self.ignore if isinstance(key, str)}:
            return Meaning()
        for key, class_id in (self.values or {}).items():
            if isinstance(key, str) and key.casefold() == folded:
                return Meaning(class_id=class_id)
        for class_id, name in enumerate(self.names):
            if name.casefold() == folded:
                return Meaning(class_id=class_id)
        number = _whole(text)
        if number is not None:
            return self.of_number(number)
        known = [key for key in self.values or {} if isinstance(key, str)]
        hint = nearest(text, [*known, *self.names], list_known=False)
        return Meaning(problem=f"unknown class {text!r}{hint}")


def class_values(source: LabelSource, classes: Sequence[ClassInfo]) -> ClassValues:
    """The values of a label source, with class names turned into ids."""
    names = tuple(info.name for info in sorted(classes, key=lambda info: info.class_id))
    values = source.values
    return ClassValues(
        values=None if values is None else {key: names.index(values[key]) for key in values},
        ignore=frozenset(source.ignore),
        names=names,
    )


def _whole(value: object) -> int | None:
    """A whole number given as a number or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
