"""YAML from anywhere: the safe loader, and no text that grows or nests without end."""

from typing import Any

import yaml

MAX_VALUES = 5_000_000
"""Values that a text may hold once its aliases are written out: many thousand scenes."""


def yaml_values(text: str, *, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: it is no YAML, is nested too deeply, refers to itself, or its aliases
            stand for more than `MAX_VALUES` values.
    """
    try:
        values = yaml.load(text, Loader=loader)
        size = _size(values, {}, set())
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # dates and numbers that Python does not have
        raise yaml.YAMLError(str(error)) from None
    if size > MAX_VALUES:
        raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
    return values


def _size(value: Any, known: dict[int, int], open_: set[int]) -> int:
    """Values within a value, each shared one counted wherever it stands but walked once."""
    if not isinstance(value, dict | list):
        return 1
    name = id(value)
    if name in open_:
        raise yaml.YAMLError("an alias stands inside what it refers to")
    if name not in known:
        open_.add(name)
        inner = value.values() if isinstance(value, dict) else value
        known[name] = 1 + sum(_size(item, known, open_) for item in inner)
        open_.discard(name)
    return known[name]
