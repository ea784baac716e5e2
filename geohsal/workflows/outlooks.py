"""What `--dry-run` says of a training, a prediction or an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutlook:
    """What a training would do; nothing was changed.

    `steps_done` of the `steps` are in the checkpoint of an interrupted training; `starts_from` says
    in words which weights the first step starts from. Where the round is trained already, `would`
    is "nothing" and only `round`, `model` and `device` say something. `scenes` are those whose
    train tiles are read; `val_scenes` choose the checkpoint. `classes_missing` have no labelled
    train pixel.
    """

    dry_run: bool = True
    round: int
    would: Literal["train", "go on", "nothing"]
    model: Path
    device: str
    processes: int = 1
    steps: int = 0
    steps_done: int = 0
    starts_from: str = ""
    scenes: tuple[str, ...] = ()
    val_scenes: tuple[str, ...] = ()
    regions: int = 0
    withheld_regions: int = 0
    labelled_pixels: dict[str, int] | None = None
    classes_missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOutlook:
    """What a prediction would do; nothing was changed.

    `scenes` would be mapped, with their (rows, cols); `kept` are mapped already by the same model,
    and `failures` says why others could not be opened. Of their `chunks`, `chunks_done` are there
    from before and `chunks_now` would be done by this command (share). The maps hold
    `unpacked_bytes` with their overviews; the files are smaller.
    """

    dry_run: bool = True
    out: Path
    model: Path
    model_hash: str
    device: str
    shard: str | None
    scenes: dict[str, tuple[int, int]]
    kept: tuple[str, ...]
    failures: dict[str, str]
    chunks: int
    chunks_done: int
    chunks_now: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOutlook:
    """What an export would do; nothing was changed.

    `up_to_date` says that the file is there; else `parts_done` of the `scenes` are cut already (of
    the same rasters and labels) and `parts_now` would be cut by this command (share): those of
    `scenes_now`, of which `raster_bytes` would be read. `skipped` scenes have no rasters in the
    round.
    """

    dry_run: bool = True
    out: Path
    round: int
    up_to_date: bool
    shard: str | None = None
    scenes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    parts_done: int = 0
    parts_now: int = 0
    scenes_now: tuple[str, ...] = ()
    raster_bytes: int = 0
