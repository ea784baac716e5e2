"""Settings as frozen dataclasses, checked where YAML enters; no torch here.

`load_config` overlays a preset or a file on the defaults once (no chains), then `--set a.b=v`.
Every default is geohsal's own choice (docs: method specification); none is "the paper's".
"""

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from geohsal.config.asking import CostConfig, OutputConfig, QueryConfig, StopConfig
from geohsal.config.fields import STRICT
from geohsal.config.learning import AugmentConfig, SslConfig, TrainConfig
from geohsal.config.network import ModelConfig, TileConfig
from geohsal.config.refinement import EmdConfig, PlarConfig, PriorConfig
from geohsal.config.yaml_text import yaml_values
from geohsal.errors import ConfigError

FORMAT_VERSION = 1
PRESETS = ("cpu-small", "default")
SIMULATE = "simulate"
"""Section that only `geohsal.config.simulation` reads."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Config:
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of everything random")
    tile: TileConfig = dataclasses.field(default_factory=TileConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    ssl: SslConfig = dataclasses.field(default_factory=SslConfig)
    emd: EmdConfig = dataclasses.field(default_factory=EmdConfig)
    plar: PlarConfig = dataclasses.field(default_factory=PlarConfig)
    prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
    query: QueryConfig = dataclasses.field(default_factory=QueryConfig)
    cost: CostConfig = dataclasses.field(default_factory=CostConfig)
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        if 2 * self.model.window_overlap_px > self.model.window_px:
            raise ValueError(
                "model.window_overlap_px may be at most half of model.window_px "
                f"({self.model.window_overlap_px} of {self.model.window_px})"
            )
        low, high = self.augment.scale
        if not 0 < low <= high:
            raise ValueError(
                f"augment.scale must be two positive rising numbers, not {low}, {high}"
            )


_ADAPTER = TypeAdapter(Config)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested mapping of all settings, ready for YAML or JSON."""
    dumped: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return dumped


def config_from_dict(values: Mapping[str, Any], *, where: str) -> Config:
    """Checked settings from a nested mapping laid over the defaults.

    Raises:
        ConfigError: naming `where`, the key, what was found and what is allowed.
    """
    try:
        return _ADAPTER.validate_python(_tuples(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, known_keys())}") from None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values), default=str))  # type: ignore[no-any-return]


def explain(error: ValidationError, keys: Sequence[str] = ()) -> str:
    """One line for the first problems of a pydantic error, with a suggestion for unknown keys."""
    from difflib import get_close_matches

    lines = []
    for item in error.errors()[:3]:
        place = ".".join(_plain(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            leaf = str(item["loc"][-1])
            near = get_close_matches(leaf, [key.rsplit(".", 1)[-1] for key in keys], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            lines.append(f"unknown key {place!r}{hint}")
        else:
            message = " ".join(item["msg"].removeprefix("Value error, ").split())
            found = item.get("input")
            if item["type"] in ("dataclass_type", "dict_type"):
                message = "must be a mapping of keys"
            scalar = found is None or isinstance(found, str | int | float | bool)
            shown = f", found {_shown(found)}" if scalar and "found" not in message else ""
            if item["type"] == "missing":
                message, shown = "is missing", ""
            lines.append(f"{place + ': ' if place else ''}{message}{shown}")
    more = error.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _plain(part: object) -> str:
    """A key as people may see it: control characters and line ends are written out."""
    text = str(part)
    return text if text.isprintable() else repr(text)[1:-1]


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def known_keys() -> list[str]:
    """Dotted names of all settings."""
    return list(_flatten(config_to_dict(Config())))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_schema() -> dict[str, Any]:
    """JSON Schema of the settings: every key with type, default, bounds and description."""
    return _ADAPTER.json_schema()


def preset_text(name: str) -> str:
    """Text of a preset that ships with the package."""
    return (_shipped() / f"{name}.yaml").read_text("utf-8")


def shipped_names(prefix: str) -> tuple[str, ...]:
    """Names of the YAML files that ship with the package and begin with `prefix`, sorted."""
    names = (entry.name for entry in _shipped().iterdir())
    return tuple(
        sorted(
            n.removesuffix(".yaml") for n in names if n.startswith(prefix) and n.endswith(".yaml")
        )
    )


def _shipped() -> Traversable:
    shipped = resources.files("geohsal") / "presets"
    if shipped.is_dir():
        return shipped
    return Path(__file__).parents[2] / "configs"  # an editable install: the wheel holds configs/


def load_config(
    source: str | Path,
    *,
    overrides: Sequence[str] = (),
    layer: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Settings from a preset's name or a YAML file, then `layer`, then `a.b=value` overrides.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value out of range; or
            the file describes a simulation.
    """
    values = read_settings(source, presets=PRESETS)
    if SIMULATE in values:
        raise ConfigError(
            f"config {source}: has a section {SIMULATE!r}, so it is for geohsal simulate; without "
            "that section any command takes it"
        )
    laid, where = lay_over(values, layer or {}), f"config {source}"
    changed = override(laid, overrides)
    try:
        return config_from_dict(changed, where=where)
    except ConfigError:
        config_from_dict(laid, where=where)  # says so where the file itself is wrong
        return config_from_dict(changed, where=" ".join(f"--set {text}" for text in overrides))


def read_settings(source: str | Path, *, presets: Sequence[str]) -> dict[str, Any]:
    """The mapping in a YAML file, or in one of the presets by its name; unchecked.

    Raises:
        ConfigError: the file is missing or not a YAML mapping.
    """
    name = str(source)
    if name in presets:
        text = preset_text(name)
    else:
        path = Path(source)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"config {name}: cannot be read ({error}); give a YAML file or one of the presets "
                f"{', '.join(presets)}"
            ) from None
    return parse_yaml_mapping(text, where=f"config {name}")


def lay_over(values: Mapping[str, Any], layer: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A copy of nested settings in which the keys of `layer` (by section) replace their own.

    A section of `values` that is no mapping stays as it is, for the check to find.
    """
    laid = dict(values)
    for section, keys in layer.items():
        below = laid.get(section, {})
        if below is None or isinstance(below, Mapping):
            laid[section] = {**(below or {}), **keys}
    return laid


def override(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested settings changed by `a.b=value` lines, in their order.

    Raises:
        ConfigError: a line is not written like that.
    """
    changed = copy.deepcopy(dict(values))
    for text in overrides:
        _apply_override(changed, text)
    return changed


def parse_yaml_mapping(text: str, *, where: str) -> dict[str, Any]:
    """A YAML text that must be a mapping (safe loader).

    Raises:
        ConfigError: it is not YAML, or not a mapping.
    """
    try:
        values = yaml_values(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a mapping of keys, found {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        value = yaml_values(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    target = values
    for part in parts[:-1]:
        inner = target.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {part!r} is a value, not a section")
        target = inner
    target[parts[-1]] = value
