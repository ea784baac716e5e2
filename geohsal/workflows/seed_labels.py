"""First labels where there is truth but nobody drew any: random regions, as rasters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.config import TileConfig
from geohsal.data.seed_cells import MIN_REGIONS, SeedDraw, count_cells, draw_cells, in_cells
from geohsal.errors import RequestError
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.io.atomic import read_record, write_json, write_text
from geohsal.io.cog import write_cog
from geohsal.io.labels import read_truth
from geohsal.io.manifest import LabelSource, Manifest, SceneSource, load_manifest
from geohsal.io.raster import SceneReader, open_scene
from geohsal.workflows.manifest_text import is_new, manifest_text, remarks_of
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.scan import scene_splits, scene_tiles

RECORD = "seed.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRequest:
    """How first labels are drawn: `share` of the valid train pixels, cells of `region_px`."""

    share: float
    region_px: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise RequestError(
                f"share of first labels must be above 0 % and at most 100 %, found {self.share:.3%}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSummary:
    """What was labelled; `written` is False where it was there already.

    `share` is of the `pool`, the valid train pixels of the scenes with truth; `regions` counts
    per class the regions that hold it, `scarce` names the classes with fewer than three.
    """

    manifest: Path
    written: bool
    scenes: int
    cells: int
    pixels: int
    pool: int
    share: float
    regions: dict[str, int] = field(default_factory=dict)
    scarce: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


def write_seed_labels(
    manifest_path: Path,
    out_manifest: Path,
    *,
    share: float,
    region_px: int = 32,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SeedSummary:
    """Write first labels for the train scenes of a manifest, and a manifest that names them.

    The labels are whole grid cells of the scenes' truth, drawn by chance (`draw_cells`), as
    rasters in a folder named like the new manifest. Everything else of the manifest stays.

    Args:
        manifest_path: a manifest with `truth` for train scenes.
        out_manifest: the new manifest.
        share: of the valid train pixels, from 0 to 1.
        region_px: side of a cell; best the `query.region_px` of the runs to come.
        seed: of the draw.
        overwrite: replace an `out_manifest` that says something else.
        progress: told about each scene.

    Raises:
        ManifestError: the manifest does not say what it must.
        RequestError: no train scene has truth, the share buys nothing, or `out_manifest` is of
            another request.
        DataError: a scene or its truth cannot be read.
    """
    request = SeedRequest(share=share, region_px=region_px, seed=seed)
    if out_manifest.resolve() == manifest_path.resolve():
        raise RequestError(f"{out_manifest}: is the manifest itself; give another name with -o")
    manifest = load_manifest(manifest_path)
    return seed_manifest(
        manifest,
        out_manifest,
        request,
        remarks=remarks_of(manifest_path),
        overwrite=overwrite,
        progress=progress or Silent(),
    )


def seed_manifest(
    manifest: Manifest,
    out: Path,
    request: SeedRequest,
    *,
    remarks: Sequence[str],
    overwrite: bool,
    progress: Progress,
) -> SeedSummary:
    """As `write_seed_labels`, for a manifest that need not be on disk; `remarks` go on top."""
    folder = out.with_name(f"{out.stem}_labels")
    scenes = [s for s in manifest.scenes if s.truth and s.split in ("train", "blocks")]
    if not scenes:
        raise RequestError(
            f"{manifest.path}: no train scene has truth to draw first labels from; add truth:"
        )
    seeded = {scene.scene_id: _labelled(scene, folder.name) for scene in scenes}
    text = manifest_text(
        replace(manifest, scenes=tuple(seeded.get(s.scene_id, s) for s in manifest.scenes)),
        [*remarks, _remark(request)],
    )
    if not is_new(out, text, overwrite=overwrite) and _complete(folder, seeded):
        return _read_summary(folder / RECORD, out)
    draw, pool = _draw(manifest, scenes, request, progress)  # may refuse: nothing is changed yet
    out.unlink(missing_ok=True)  # it must not name labels that are half replaced
    _write_rasters(manifest, scenes, draw, folder, request, progress)
    summary = _summary(manifest, scenes, draw, out=out, pool=pool)
    plain = asdict(summary) | {"manifest": out.name, "format_version": FORMAT_VERSION}
    write_json(folder / RECORD, plain | {"request": asdict(request)})
    write_text(out, text)
    return summary


def _labelled(scene: SceneSource, folder: str) -> SceneSource:
    """The scene with its label raster, named relative to the manifest."""
    source = LabelSource(path=f"{folder}/{scene.scene_id}.tif", ignore=(IGNORE_INDEX,))
    return replace(scene, labels=source)


def _remark(request: SeedRequest) -> str:
    return (
        f"first labels: {100 * request.share:g} % of the valid train pixels, random regions of "
        f"{request.region_px} px, seed {request.seed}"
    )


def _complete(folder: Path, seeded: dict[str, SceneSource]) -> bool:
    names = [RECORD, *(f"{scene_id}.tif" for scene_id in seeded)]
    return all((folder / name).is_file() for name in names)


def _draw(
    manifest: Manifest, scenes: Sequence[SceneSource], request: SeedRequest, progress: Progress
) -> tuple[SeedDraw, int]:
    """The draw over all scenes, and the pixels that it was drawn from."""
    progress.start("reading truth", len(scenes))
    counted = []
    for source in scenes:
        _, truth, pool = _truth(manifest, source)
        counted.append(
            count_cells(
                source.scene_id,
                truth,
                pool=pool,
                region_px=request.region_px,
                num_classes=manifest.num_classes,
            )
        )
        progress.advance()
    progress.done()
    draw = draw_cells(counted, share=request.share, seed=request.seed)
    total = sum(scene.pool for scene in counted)
    if not draw.pixels:
        raise RequestError(
            f"{manifest.path}: {request.share:.4%} of {total:,} valid train pixels buy no region "
            f"of {request.region_px} x {request.region_px}; give a larger share"
        )
    return draw, total


def _truth(manifest: Manifest, source: SceneSource) -> tuple[Scene, NDArray[np.uint8], int]:
    """A scene, its truth (255 where a pixel may not train), its number of valid train pixels."""
    assert source.truth is not None
    limit = TileConfig().max_pixels
    with open_scene(source, manifest.bands, max_pixels=limit) as reader:
        scene = reader.scene
        where = f"scene {scene.scene_id!r}: truth"
        truth = read_truth(source.truth, scene, manifest.classes, where=where)
        usable = _trainable(manifest, source, reader)
    truth[~usable] = IGNORE_INDEX
    return scene, truth, int(usable.sum())


def _trainable(manifest: Manifest, source: SceneSource, reader: SceneReader) -> NDArray[np.bool_]:
    """Valid pixels (row, col) outside val, test and buffers."""
    scene, blocks = reader.scene, manifest.blocks
    valid = reader.valid(scene.extent)
    if source.split != "blocks":
        return valid
    whole = max(scene.shape)  # a tile per block: buffers are at least those of any smaller tiles
    tiles = scene_tiles(source, scene, blocks, core_px=whole, overlap_px=0)
    table = scene_splits(source, blocks, tiles, reader)
    train: NDArray[np.bool_] = table.read(scene.extent) == Split.TRAIN
    return train & valid


def _write_rasters(
    manifest: Manifest,
    scenes: Sequence[SceneSource],
    draw: SeedDraw,
    folder: Path,
    request: SeedRequest,
    progress: Progress,
) -> None:
    progress.start("writing first labels", len(scenes))
    for source in scenes:
        scene, truth, _ = _truth(manifest, source)
        cells = draw.cells[source.scene_id]
        truth[~in_cells(scene.shape, cells, region_px=request.region_px)] = IGNORE_INDEX
        write_cog(
            folder / f"{source.scene_id}.tif",
            truth,
            scene=scene,
            nodata=IGNORE_INDEX,
            band_names=("class",),
            colors={info.class_id: info.color for info in manifest.classes},
        )
        progress.advance()
    progress.done()


def _summary(
    manifest: Manifest, scenes: Sequence[SceneSource], draw: SeedDraw, *, out: Path, pool: int
) -> SeedSummary:
    regions = dict(zip(manifest.class_names, draw.regions.tolist(), strict=True))
    return SeedSummary(
        manifest=out,
        written=True,
        scenes=len(scenes),
        cells=sum(cells.size for cells in draw.cells.values()),
        pixels=draw.pixels,
        pool=pool,
        share=draw.pixels / pool,
        regions=regions,
        scarce=tuple(name for name, count in regions.items() if count < MIN_REGIONS),
        replaced=tuple(scene.scene_id for scene in scenes if scene.labels is not None),
    )


def _read_summary(path: Path, out: Path) -> SeedSummary:
    """The summary of an earlier call with the same request."""
    names = list(SeedSummary.__dataclass_fields__)
    record: dict[str, Any] = read_record(path, *names)
    values = {name: record[name] for name in names} | {"manifest": out, "written": False}
    lists = {name: tuple(values[name]) for name in ("scarce", "replaced")}
    return SeedSummary(**(values | lists))
