"""What `tile` found out about a run's scenes: tile.json, and scenes and tiles without rasters."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from affine import Affine
from rasterio.crs import CRS

from geohsal.config import FORMAT_VERSION as CONFIG_VERSION
from geohsal.config import Config, config_to_dict, load_config
from geohsal.errors import DataError, LabelError
from geohsal.geo.moments import BandMoments
from geohsal.geo.scene import Scene, Tile
from geohsal.io.atomic import read_json, write_json, write_text
from geohsal.io.fingerprint import file_sha256
from geohsal.io.gdal import is_remote
from geohsal.io.manifest import LabelSource
from geohsal.io.run import Run
from geohsal.io.tile_index import read_tiles

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStat:
    """How the network scales a band: (value - mean) / std; std is 1 for a constant band."""

    name: str
    mean: float
    std: float
    constant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """What is labelled of one class for training; `share` is of the valid train pixels."""

    class_id: int
    name: str
    pixels: int
    regions: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRecord:
    """One scene as it was tiled.

    `split` is train, val, test or blocks and `buffer_px` the gap between its blocks (0 else).
    `split_pixels` counts valid pixels in train, val, test and buffer. `labelled` and `regions`
    count, by class name, the manifest's labels that training may read; `dropped_labels` lie on
    val, test or buffer pixels, `invalid_labels` on pixels without data. `fingerprint` is of the
    image with its bands, mask and AOI, `labels_digest` of the label file and how it is read;
    `glance` is a cheap fingerprint of the image ("": tiled by an older version).
    """

    scene_id: str
    height: int
    width: int
    crs_wkt: str | None
    transform: tuple[float, float, float, float, float, float]
    local: bool
    bands: tuple[str, ...]
    split: str
    buffer_px: int
    fingerprint: str
    labels_digest: str
    tiles: int
    valid_pixels: int
    split_pixels: dict[str, int]
    labelled: dict[str, int]
    regions: dict[str, int]
    dropped_labels: int
    invalid_labels: int
    issues: tuple[str, ...]
    moments: BandMoments
    patches: bool = False
    glance: str = ""

    @property
    def train_pixels(self) -> int:
        """Valid pixels of the train split: what `%` of a budget refers to."""
        return self.split_pixels["train"]

    @property
    def scene(self) -> Scene:
        """Where the scene's pixels lie."""
        return Scene(
            scene_id=self.scene_id,
            crs=None if self.crs_wkt is None else CRS.from_wkt(self.crs_wkt),
            transform=Affine(*self.transform),
            height=self.height,
            width=self.width,
            bands=self.bands,
            local=self.local,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRecord:
    """The content of tile.json; `tiles_sha256` ties it to the tile index of the same moment.

    `core_px`, `overlap_px` and `region_px` (that cut label rasters into regions) hold for the
    whole life of the run, whatever later settings say.
    """

    bands: tuple[BandStat, ...]
    scenes: dict[str, SceneRecord]
    classes: tuple[ClassShare, ...]
    warnings: tuple[str, ...]
    core_px: int
    overlap_px: int
    region_px: int
    tiles_sha256: str = ""

    @property
    def train_valid_pixels(self) -> int:
        """Valid train pixels of all scenes."""
        return sum(record.train_pixels for record in self.scenes.values())

    @property
    def classes_missing(self) -> tuple[str, ...]:
        """Classes without a single labelled train pixel."""
        return tuple(share.name for share in self.classes if share.pixels == 0)

    @property
    def local(self) -> bool:
        """True where any scene has no position on Earth: budgets in ground units mean nothing."""
        return any(record.local for record in self.scenes.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(dataclasses.replace(self, scenes={}))
        return values | {
            "scenes": {
                scene_id: scene_values(record) | {"train_pixels": record.train_pixels}
                for scene_id, record in self.scenes.items()
            },
            "format_version": FORMAT_VERSION,
            "scene_order": list(self.scenes),
            "train_valid_pixels": self.train_valid_pixels,
            "classes_missing": self.classes_missing,
        }


def scene_values(record: SceneRecord) -> dict[str, Any]:
    """Plain values for JSON; `scene_record` reads them."""
    values = dataclasses.asdict(record)
    for name in ("low", "high"):  # infinite for scenes without train pixels
        values["moments"][name] = [
            value if math.isfinite(value) else None for value in values["moments"][name]
        ]
    return values


def write_summary(path: Path, record: TileRecord) -> None:
    """Write tile.json whole or not at all."""
    write_json(path, record.to_dict())


def read_summary(run: Run) -> TileRecord:
    """What `tile` wrote last.

    Raises:
        DataError: tile.json is missing, damaged, or of a newer version.
    """
    values = read_json(run.summary)
    try:
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(
                f"{run.summary}: format {version}, this geohsal reads {FORMAT_VERSION}; "
                "delete it and run geohsal tile again"
            )
        return TileRecord(
            bands=tuple(BandStat(**band) for band in values["bands"]),
            scenes={key: scene_record(values["scenes"][key]) for key in values["scene_order"]},
            classes=tuple(ClassShare(**share) for share in values["classes"]),
            warnings=tuple(values["warnings"]),
            core_px=values["core_px"],
            overlap_px=values["overlap_px"],
            region_px=values["region_px"],
            tiles_sha256=values["tiles_sha256"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{run.summary}: damaged ({error}); delete it and run geohsal tile again"
        ) from None


def scene_record(entry: dict[str, Any]) -> SceneRecord:
    """What `scene_values` gave.

    Raises:
        KeyError: a value is missing.
    """
    fields = {field.name for field in dataclasses.fields(SceneRecord)}
    known = {name: value for name, value in entry.items() if name in fields}
    moments = known["moments"]
    known["moments"] = BandMoments(
        count=moments["count"],
        mean=tuple(moments["mean"]),
        m2=tuple(moments["m2"]),
        low=tuple(math.inf if value is None else value for value in moments["low"]),
        high=tuple(-math.inf if value is None else value for value in moments["high"]),
    )
    for name in ("transform", "bands", "issues"):
        known[name] = tuple(known[name])
    return SceneRecord(**known)


def load_scenes(run: Run) -> dict[str, Scene]:
    """The scenes of a run in the manifest's order, without opening their rasters."""
    return {scene_id: record.scene for scene_id, record in read_summary(run).scenes.items()}


def load_tiles(run: Run) -> dict[str, list[Tile]]:
    """The tiles of each scene, in the manifest's order of scenes."""
    return group_tiles(read_tiles(run.tiles))


def group_tiles(tiles: Iterable[Tile]) -> dict[str, list[Tile]]:
    """Tiles by scene, in the order they come."""
    grouped: dict[str, list[Tile]] = {}
    for tile in tiles:
        grouped.setdefault(tile.scene_id, []).append(tile)
    return grouped


def heldout_labels(run: Run, scene_id: str) -> Path:
    """Raster like `run.labels` with the manifest's labels on val and test pixels.

    Exists only where there are such labels; training never reads it.
    """
    return run.labels_dir / "heldout" / f"{scene_id}.tif"


def write_config(path: Path, config: Config, *, version: str) -> None:
    """Write all settings as YAML that `load_config` reads, with geohsal's version on top."""
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(
        path, f"# geohsal {version}, format_version {CONFIG_VERSION}, sha256 {digest}\n{text}"
    )


def read_config(run: Run) -> Config:
    """The settings of the run: those of the last command that took new ones.

    Raises:
        ConfigError: config.yaml is missing or was damaged.
    """
    return load_config(run.config)


def labels_digest(source: LabelSource | None, *, region_px: int) -> str:
    """Fingerprint of a label file and of how the manifest reads it; "" where there are no labels.

    A file that is not on a local disk counts by its name.

    Raises:
        LabelError: there is no such file, or it cannot be read.
    """
    if source is None:
        return ""
    settings = [repr(value) for value in dataclasses.astuple(source)[1:]]  # without the path
    digest = hashlib.sha256(f"{region_px} {settings}".encode())
    if is_remote(source.path) or source.path.startswith("/vsi"):
        digest.update(source.path.encode())
    else:
        for member in _members(Path(source.path)):
            try:
                digest.update(f"{member.name} {file_sha256(member)}".encode())
            except DataError as error:
                raise LabelError(str(error)) from None
    return digest.hexdigest()[:32]


def _members(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(member for member in path.rglob("*") if member.is_file())
    if path.suffix.lower() == ".shp":
        return sorted(path.parent.glob(f"{path.stem}.*"))
    return [path]
