"""YAML from anywhere: the safe loader, and no text that grows or nests without end."""

from typing import Any

import yaml

MAX_VALUES = 5_000_000
"""Values that a text may hold once its aliases are written out: many thousand scenes."""


MAX_MERGED = 500_000
"""Pairs that merge keys may write out while a text is read: ten for each of 50,000 scenes."""

_MERGE = "tag:yaml.org,2002:merge"


class BoundedLoader(yaml.SafeLoader):
    """Safe YAML whose merge keys (`<<`) write out no more than `MAX_MERGED` pairs."""

    merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Write out the merge keys of a mapping.

        Raises:
            yaml.YAMLError: that would be too many pairs, with those of all mappings before it.
        """
        sources = _merge_sources(node)
        for source in sources:
            self.flatten_mapping(source)
        self.merged += sum(len(source.value) for source in sources)
        if self.merged > MAX_MERGED:
            raise yaml.YAMLError(f"its merge keys stand for more than {MAX_MERGED:,} pairs")
        super().flatten_mapping(node)


def _merge_sources(node: yaml.MappingNode) -> list[yaml.MappingNode]:
    """Mappings that a mapping names under its merge keys, each as often as it is named."""
    named = [value for key, value in node.value if key.tag == _MERGE]
    lists = [value.value if isinstance(value, yaml.SequenceNode) else [value] for value in named]
    return [source for one in lists for source in one if isinstance(source, yaml.MappingNode)]


def yaml_values(text: str, *, loader: type[BoundedLoader] = BoundedLoader) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: it is no YAML, is nested too deeply, refers to itself, or its aliases
            stand for more than `MAX_VALUES` values, its merge keys for more than `MAX_MERGED`.
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
