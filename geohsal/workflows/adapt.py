"""`geohsal manifest`: benchmark datasets on disk become manifests, with their protocol on top."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geohsal.data.adapters import Adapted
from geohsal.data.adapters.cityscapes import read_cityscapes
from geohsal.data.adapters.loveda import Domain, read_loveda
from geohsal.data.adapters.vaihingen import Boundaries, VaihingenSplit, read_vaihingen
from geohsal.io.atomic import write_text
from geohsal.io.manifest import Blocks, Manifest
from geohsal.workflows.manifest_text import is_new, manifest_text
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.seed_labels import SeedRequest, SeedSummary, seed_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSummary:
    """What a manifest holds; `written` is False where the file said the same already.

    `protocol` are the lines that belong to every result on it; `labels` is None where no first
    labels were asked for.
    """

    manifest: Path
    written: bool
    name: str
    scenes: dict[str, int]
    classes: tuple[str, ...]
    protocol: tuple[str, ...]
    labels: SeedSummary | None = None


def adapt_vaihingen(
    root: Path,
    out: Path,
    *,
    num_classes: Literal[5, 6] = 5,
    boundaries: Boundaries = "full",
    split: VaihingenSplit = "isprs-val",
    labels: SeedRequest | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AdaptSummary:
    """Write a manifest of ISPRS Vaihingen, truth for all scenes.

    Args:
        root: folder with `top/` and the masks.
        out: the manifest.
        num_classes: 5: clutter is ignored; 6: clutter is a class.
        boundaries: masks of the test scenes.
        split: isprs (16 train, 17 test) or isprs-val (5 of the 16 set apart).
        labels: also write first labels; None: the manifest has none.
        overwrite: replace an `out` that says something else.
        progress: told about each scene while first labels are made.

    Raises:
        DataError: files are missing or cannot be read.
        RequestError: `out` exists and is of another request.
    """
    found = read_vaihingen(root, num_classes=num_classes, boundaries=boundaries, split=split)
    return _write(found, out, labels, overwrite=overwrite, progress=progress)


def adapt_loveda(
    root: Path,
    out: Path,
    *,
    domain: Domain = "both",
    labels: SeedRequest | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AdaptSummary:
    """Write a manifest of LoveDA: Train is train, Val is test.

    Args:
        root: folder with `Train/` and `Val/`.
        out: the manifest.
        domain: urban or rural scenes alone, or both.
        labels: as for `adapt_vaihingen`, and so are the rest and the errors.
        overwrite: replace an `out` that says something else.
        progress: told about each scene while first labels are made.
    """
    found = read_loveda(root, domain=domain)
    return _write(found, out, labels, overwrite=overwrite, progress=progress)


def adapt_cityscapes(
    root: Path,
    out: Path,
    *,
    labels: SeedRequest | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AdaptSummary:
    """Write a manifest of Cityscapes: train is train, val is test.

    Args:
        root: folder with `leftImg8bit/` and `gtFine/`.
        out: the manifest.
        labels: as for `adapt_vaihingen`, and so are the rest and the errors.
        overwrite: replace an `out` that says something else.
        progress: told about each scene while first labels are made.
    """
    return _write(read_cityscapes(root), out, labels, overwrite=overwrite, progress=progress)


def _write(
    found: Adapted,
    out: Path,
    labels: SeedRequest | None,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> AdaptSummary:
    manifest = Manifest(
        version=1,
        name=found.name,
        classes=found.classes,
        bands=found.bands,
        blocks=Blocks(),
        scenes=found.scenes,
        path=out.absolute(),
    )
    seeds = None
    if labels is None:
        text = manifest_text(manifest, found.protocol)
        written = is_new(out, text, overwrite=overwrite)
        if written:
            write_text(out, text)
    else:
        seeds = seed_manifest(
            manifest,
            out,
            labels,
            remarks=found.protocol,
            overwrite=overwrite,
            progress=progress or Silent(),
        )
        written = seeds.written
    return AdaptSummary(
        manifest=out,
        written=written,
        name=found.name,
        scenes=found.per_split(),
        classes=manifest.class_names,
        protocol=found.protocol,
        labels=seeds,
    )
