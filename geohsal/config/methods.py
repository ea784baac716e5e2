"""Named methods: settings that are laid over a file, from configs/methods.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from geohsal.config.loading import (
    Config,
    config_from_dict,
    config_to_dict,
    lay_over,
    parse_yaml_mapping,
    preset_text,
)
from geohsal.errors import ConfigError

FOREST = "forest"
"""A random forest on the labels that another method's queries gave: no settings of its own."""

FULL = "full"
"""The same model with every train pixel labelled: what queries can reach at most."""

OURS = "geohsal"
"""Whose queries the random forest follows."""

_KEYS = {"description", "settings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to learn: one line for people, and settings by section."""

    name: str
    description: str
    settings: Mapping[str, Mapping[str, Any]]


@cache
def load_methods() -> Mapping[str, Method]:
    """The methods that ship with the package, in the order of their file.

    Raises:
        ConfigError: an entry of the file is not what it must be.
    """
    values = parse_yaml_mapping(preset_text("methods"), where="methods.yaml")
    return {name: _method(str(name), entry) for name, entry in values.items()}


def _method(name: str, entry: object) -> Method:
    where = f"methods.yaml: {name}"
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise ConfigError(f"{where}: must be a mapping with {' and '.join(sorted(_KEYS))}")
    if name in (FOREST, FULL):
        raise ConfigError(f"{where}: is a name with a meaning of its own; choose another")
    settings = entry["settings"]
    if not all(isinstance(section, dict) for section in settings.values()):
        raise ConfigError(f"{where}: settings: must be mappings of keys by section")
    config_from_dict(settings, where=where)
    return Method(name=name, description=entry["description"], settings=settings)


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        ConfigError: there is none.
    """
    methods = load_methods()
    if name not in methods:
        near = get_close_matches(name, methods, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(methods)}"
        raise ConfigError(f"no method {name!r}; {hint}")
    return methods[name]


def with_method(config: Config, name: str) -> Config:
    """Settings with those of a method laid over them.

    Raises:
        ConfigError: there is no such method, or the outcome contradicts itself.
    """
    values = lay_over(config_to_dict(config), find_method(name).settings)
    return config_from_dict(values, where=f"method {name}")
