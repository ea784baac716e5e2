"""The manifest's text: its keys and their types, checked by pydantic, with one-line errors."""

import dataclasses
import math
import re
from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from geohsal.config import explain
from geohsal.config.yaml_text import BoundedLoader, yaml_values
from geohsal.errors import ManifestError

_STRICT = ConfigDict(extra="forbid")
Checked = TypeVar("Checked", "TopText", "ClassText", "SceneText")


def _path_alone(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _text(value: object) -> object:
    """Refuse what YAML made of an unquoted word: numbers, dates, yes and no."""
    if value is None:
        raise ValueError('must be text; write it in quotes (an unquoted "#" starts a comment)')
    if not isinstance(value, str):
        raise ValueError(f"must be text, found {value!r}; write it in quotes")
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def _whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, found {value!r}")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, found {value!r}")
    return value


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, found {type(value).__name__}")
    return value


def _like(pattern: str, meaning: str) -> AfterValidator:
    """Text that matches a pattern; `meaning` says so in words."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}")
        return value

    return AfterValidator(check)


Text = Annotated[str, BeforeValidator(_text)]
Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ClassText:
    """One entry of `classes`."""

    id: Annotated[Whole, Field(ge=0, le=254)]
    name: Text
    color: Annotated[Text, _like(r"#[0-9a-fA-F]{6}", 'a colour like "#1b6b2f"')]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class BlocksText:
    """`blocks`."""

    size_px: Annotated[Whole, Field(ge=1)] = 512
    buffer_px: Annotated[Whole, Field(ge=0)] = 64
    shares: dict[Literal["train", "val", "test"], Annotated[Number, Field(ge=0, le=1)]] = (
        dataclasses.field(default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2})
    )
    seed: Annotated[Whole, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        total = math.fsum(self.shares.values())
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"shares must sum to 1, found {total:g}")


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class LabelText:
    """`labels` or `truth` of a scene; `values` and `ignore` are read by the manifest itself."""

    path: Text
    layer: Text | None = None
    field: Text | None = None
    values: dict[Any, Text] | None = None
    ignore: Annotated[list[Any], BeforeValidator(_list)] = dataclasses.field(default_factory=list)
    overlap: Literal["unknown", "last"] = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SceneText:
    """One entry of `scenes`."""

    id: Annotated[Text, _like(r"[A-Za-z0-9_-]{1,100}", "at most 100 letters, digits, _ and -")]
    image: Text
    bands: dict[Text, Annotated[Whole, Field(ge=1)]] | None = None
    labels: Annotated[LabelText, BeforeValidator(_path_alone)] | None = None
    truth: Annotated[LabelText, BeforeValidator(_path_alone)] | None = None
    split: Literal["train", "val", "test", "blocks"] = "train"
    aoi: Text | None = None
    nodata: Number | None = None
    mask: Text | None = None
    crs: Text | None = None
    sha256: Annotated[Text, _like(r"[0-9a-fA-F]{64}", "64 hexadecimal digits")] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TopText:
    """The whole manifest; its parts are checked one by one, so that errors name them."""

    version: Annotated[Literal[1], BeforeValidator(_whole)]
    classes: Annotated[list[Any], BeforeValidator(_list), Field(min_length=2)]
    bands: Annotated[list[Text], BeforeValidator(_list), Field(min_length=1)]
    scenes: Annotated[list[Any], BeforeValidator(_list), Field(min_length=1)]
    name: Text | None = None
    blocks: BlocksText = dataclasses.field(default_factory=BlocksText)


_KEYS = tuple(
    entry.name
    for part in (TopText, ClassText, BlocksText, SceneText, LabelText)
    for entry in dataclasses.fields(part)
)


def checked(kind: type[Checked], value: object, *, where: str) -> Checked:
    """`value` as a `kind` of this module.

    Raises:
        ManifestError: `where`, then the key, what was found and what is allowed.
    """
    if not isinstance(value, dict):
        found = " ".join(str(value).split())[:40]
        raise ManifestError(
            f"{where}: must be a mapping of keys, found {type(value).__name__} ({found})"
        )
    odd = [key for key in value if not isinstance(key, str)]
    if odd:
        raise ManifestError(f"{where}: key {odd[0]!r} must be text")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ManifestError(f"{where}: {explain(error, _KEYS)}") from None


def nearest(word: str, known: Sequence[str], *, list_known: bool = True) -> str:
    """`; did you mean 'x'?`, or what is known where nothing is near (unless that stands else)."""
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), list(folded), n=1)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    return f"; known: {', '.join(known)}" if known and list_known else ""


class _Loader(BoundedLoader):
    """Safe YAML that refuses a key given twice and lets lists ([r, g, b]) be keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            key = tuple(key) if isinstance(key, list) else key
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a mapping cannot be a key", key_node.start_mark
                )
            if key in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def read_yaml(text: str, *, where: str) -> object:
    """What a YAML text holds (safe; keys that stand twice are refused).

    Raises:
        ManifestError: it is not YAML.
    """
    try:
        return yaml_values(text, loader=_Loader)
    except yaml.YAMLError as error:
        raise ManifestError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
