"""The manifest: the only list of scenes, classes and labels; checked where its text enters."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import rasterio
import yaml
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geohsal.errors import ManifestError
from geohsal.geo.scene import ClassInfo
from geohsal.io.manifest_text import (
    BlocksText,
    ClassText,
    LabelText,
    SceneText,
    TopText,
    checked,
    nearest,
    read_yaml,
)

LabelValue = str | int | tuple[int, int, int]
"""A field value, a raster value, or an RGB triple."""

SplitName = Literal["train", "val", "test", "blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSource:
    """Where labels (or truth) come from, and what their values mean.

    `values` maps a raster value, RGB triple or field value to a class name; None: values are
    class ids or names. Values in `ignore` mean unlabelled (None there: an empty field).
    """

    path: str
    layer: str | None = None
    field: str | None = None
    values: dict[LabelValue, str] | None = None
    ignore: tuple[LabelValue | None, ...] = ()
    overlap: Literal["unknown", "last"] = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSource:
    """One entry of the manifest's scenes; paths are absolute, or URLs as they were written.

    `bands` maps a band name to its number in the file (from 1). A `nodata` of NaN on an integer
    raster means: this raster has no nodata value.
    """

    scene_id: str
    image: str
    bands: dict[str, int] | None = None
    labels: LabelSource | None = None
    truth: LabelSource | None = None
    split: SplitName = "train"
    aoi: str | None = None
    nodata: float | None = None
    mask: str | None = None
    crs: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How scenes with `split: blocks` are divided: shares of square blocks, with a buffer."""

    size_px: int = 512
    buffer_px: int = 64
    shares: dict[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A checked manifest; classes are in the order of their ids."""

    version: int
    name: str
    classes: tuple[ClassInfo, ...]
    bands: tuple[str, ...]
    blocks: Blocks
    scenes: tuple[SceneSource, ...]
    path: Path = field(compare=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(info.name for info in self.classes)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def scene(self, scene_id: str) -> SceneSource:
        """The scene with this id.

        Raises:
            ManifestError: there is none.
        """
        for source in self.scenes:
            if source.scene_id == scene_id:
                return source
        known = [source.scene_id for source in self.scenes]
        raise ManifestError(f"{self.path}: no scene {scene_id!r}{nearest(scene_id, known)}")


def load_manifest(path: Path) -> Manifest:
    """The manifest in a YAML file, with relative paths resolved against its folder.

    Raises:
        ManifestError: the file is missing or not YAML, a key is unknown, a value is wrong.
    """
    where = f"manifest {path}"
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(f"{where}: cannot be read ({reason}); give a YAML file") from None
    top = checked(TopText, read_yaml(text, where=where), where=where)
    classes = _classes(top.classes, where=where)
    bands = tuple(top.bands)
    _refuse_twice(bands, what="band", where=where)
    scenes = tuple(
        _scene(entry, index, classes=classes, bands=bands, folder=path.parent, where=where)
        for index, entry in enumerate(top.scenes)
    )
    _refuse_twice([scene.scene_id for scene in scenes], what="scene id", where=where)
    _refuse_shared_images(scenes, where=where)
    return Manifest(
        version=top.version,
        name=top.name or path.stem,
        classes=classes,
        bands=bands,
        blocks=_blocks(top.blocks),
        scenes=scenes,
        path=path.absolute(),
    )


def _refuse_twice(names: Sequence[str], *, what: str, where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            other = seen[name.casefold()]
            differ = "" if other == name else f" (and {other!r}: only the case differs)"
            raise ManifestError(f"{where}: {what} {name!r} stands twice{differ}; rename one")
        seen[name.casefold()] = name


def _refuse_shared_images(scenes: Sequence[SceneSource], *, where: str) -> None:
    """Test pixels must not be train pixels of another scene; different AOIs may share an image."""
    seen: dict[tuple[str, str | None], SceneSource] = {}
    for scene in scenes:
        first = seen.setdefault((scene.image, scene.aoi), scene)
        if first.split != scene.split:
            raise ManifestError(
                f"{where}: scenes {first.scene_id!r} ({first.split}) and {scene.scene_id!r} "
                f"({scene.split}) are the same image; give one scene split: blocks, or each its "
                "own aoi:"
            )


def _classes(entries: Sequence[object], *, where: str) -> tuple[ClassInfo, ...]:
    texts = [
        checked(ClassText, entry, where=f"{where}: classes[{index}]")
        for index, entry in enumerate(entries)
    ]
    ids = sorted(entry.id for entry in texts)
    if ids != list(range(len(ids))):
        shown = ", ".join(map(str, ids))
        raise ManifestError(
            f"{where}: classes: ids must run from 0 to {len(ids) - 1} without gap or repeat, "
            f"found {shown}"
        )
    _refuse_twice([entry.name for entry in texts], what="class name", where=where)
    return tuple(
        ClassInfo(
            class_id=entry.id,
            name=entry.name,
            color=entry.color.lower(),
            description=entry.description,
        )
        for entry in sorted(texts, key=lambda entry: entry.id)
    )


def _blocks(text: BlocksText) -> Blocks:
    shares = {name: float(text.shares.get(name, 0.0)) for name in ("train", "val", "test")}
    return Blocks(size_px=text.size_px, buffer_px=text.buffer_px, shares=shares, seed=text.seed)


def _scene(
    entry: object,
    index: int,
    *,
    classes: Sequence[ClassInfo],
    bands: tuple[str, ...],
    folder: Path,
    where: str,
) -> SceneSource:
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{where}: scene {name!r}" if isinstance(name, str) else f"{where}: scenes[{index}]"
    text = checked(SceneText, entry, where=where)
    labels, truth = (
        _labels(part, classes=classes, folder=folder, where=f"{where}: {key}") if part else None
        for key, part in (("labels", text.labels), ("truth", text.truth))
    )
    return SceneSource(
        scene_id=text.id,
        image=resolve(text.image, folder),
        bands=_band_numbers(text.bands, bands, where=where),
        labels=labels,
        truth=truth,
        split=text.split,
        aoi=resolve(text.aoi, folder) if text.aoi else None,
        nodata=math.nan if text.nodata is not None and math.isnan(text.nodata) else text.nodata,
        mask=resolve(text.mask, folder) if text.mask else None,
        crs=_crs(text.crs, where=where),
        sha256=text.sha256.lower() if text.sha256 else None,
    )


def _band_numbers(
    numbers: dict[str, int] | None, bands: tuple[str, ...], *, where: str
) -> dict[str, int] | None:
    """Band numbers in the manifest's order: all of its bands and no others, each number once."""
    if numbers is None:
        return None
    for name in numbers:
        if name not in bands:
            raise ManifestError(f"{where}: bands: {name!r} is no band{nearest(name, bands)}")
    missing = [name for name in bands if name not in numbers]
    if missing:
        raise ManifestError(f"{where}: bands: no number for {', '.join(missing)}")
    if len(set(numbers.values())) < len(numbers):
        raise ManifestError(f"{where}: bands: two bands have the same number; each needs its own")
    return {name: numbers[name] for name in bands}


def _crs(text: str | None, *, where: str) -> str | None:
    if text is None or text == "local":
        return text
    try:
        with rasterio.Env():  # else PROJ writes a line of its own
            CRS.from_user_input(text)
    except (CRSError, ValueError):
        raise ManifestError(
            f'{where}: crs: {text!r} is no known CRS; write it like "EPSG:32632", or local'
        ) from None
    return text


def resolve(path: str, folder: Path) -> str:
    """A path as the manifest means it: URLs and /vsi paths as they are, others absolute."""
    if "://" in path or path.startswith("/vsi"):
        return path
    return str((folder / path).absolute())


def _labels(
    text: LabelText, *, classes: Sequence[ClassInfo], folder: Path, where: str
) -> LabelSource:
    names = [info.name for info in classes]
    values: dict[LabelValue, str] | None = None
    if text.values is not None:
        values = {_value(key, where=where): name for key, name in text.values.items()}
        if len(values) < len(text.values):
            raise ManifestError(f"{where}: values: two keys mean the same value")
        for key, name in values.items():
            if name not in names:
                hint = nearest(name, names)
                raise ManifestError(f"{where}: values: {key!r}: {name!r} is no class{hint}")
    ignore = tuple(None if key is None else _value(key, where=where) for key in text.ignore)
    both = [key for key in ignore if values and key in values]
    if both:
        raise ManifestError(f"{where}: {both[0]!r} stands in values and in ignore; remove one")
    return LabelSource(
        path=resolve(text.path, folder),
        layer=text.layer,
        field=text.field,
        values=values,
        ignore=ignore,
        overlap=text.overlap,
    )


_TRIPLE = re.compile(r"^\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*$")


def _value(key: object, *, where: str) -> LabelValue:
    """A raster value, an RGB triple (a list, or text like "255,0,0"), or a field value."""
    if isinstance(key, str) and (match := _TRIPLE.match(key)):
        key = tuple(int(part) for part in match.groups())
    if isinstance(key, list | tuple):
        parts = [part for part in key if type(part) is int and 0 <= part <= 255]
        if len(key) != 3 or len(parts) != 3:
            raise ManifestError(f"{where}: {key!r} is no RGB triple; write three numbers 0 to 255")
        return parts[0], parts[1], parts[2]
    if isinstance(key, bool):
        raise ManifestError(
            f"{where}: YAML reads an unquoted yes, no, on or off as {key}; quote it"
        )
    if isinstance(key, float) and key.is_integer():
        return int(key)
    if isinstance(key, str | int):
        return key
    raise ManifestError(f"{where}: value {key!r} must be a whole number, text or an RGB triple")


def dump_manifest(manifest: Manifest) -> str:
    """YAML text with absolute paths that `load_manifest` reads back to an equal manifest."""
    content = {
        "version": manifest.version,
        "name": manifest.name,
        "classes": [
            {"id": info.class_id, "name": info.name, "color": info.color}
            | ({"description": info.description} if info.description else {})
            for info in manifest.classes
        ],
        "bands": list(manifest.bands),
        "blocks": asdict(manifest.blocks),
        "scenes": [_dump_scene(scene) for scene in manifest.scenes],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _dump_scene(scene: SceneSource) -> dict[str, Any]:
    entry = {"id": scene.scene_id} | {
        key: value
        for key, value in asdict(scene).items()
        if value is not None and key not in ("scene_id", "labels", "truth")
    }
    for key, source in (("labels", scene.labels), ("truth", scene.truth)):
        if source is not None:
            entry[key] = _dump_labels(source)
    return entry


def _dump_labels(source: LabelSource) -> dict[str, Any]:
    entry = {key: value for key, value in asdict(source).items() if value is not None}
    entry["ignore"] = [_dump_value(value) for value in source.ignore]
    if source.values is not None:
        entry["values"] = {_dump_value(key): name for key, name in source.values.items()}
    return entry


def _dump_value(value: LabelValue | None) -> str | int | None:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
