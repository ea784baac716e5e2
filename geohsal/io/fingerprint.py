"""Fingerprints of input files: cheap enough for large scenes, sharp enough to notice a change."""

import hashlib
import json
from pathlib import Path
from typing import Any

from geohsal.errors import DataError
from geohsal.io.aoi import AreaOfInterest
from geohsal.io.bands import BandPlan
from geohsal.io.manifest import SceneSource

_GLANCES = 4
_GLANCE_BYTES = 4 * 2**10
_WHOLE_BYTES = 64 * 2**20
_SAMPLES = 32
_SAMPLE_BYTES = 64 * 2**10
_VOLATILE = (".aux.xml", ".ovr")
"""Side files that viewers write: statistics and overviews."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file, in hex.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def fingerprint_of(
    dataset: Any, source: SceneSource, *, plan: BandPlan, aoi: AreaOfInterest | None
) -> str:
    """Hash of an open image: header, band choice, bytes of its files and mask, shapes of its AOI.

    Files above 64 MiB are sampled (start, end and places between); remote ones count by their
    header. Folder names play no part, so a moved scene keeps its fingerprint.
    """
    digest = hashlib.sha256(_header(dataset, source, plan=plan, aoi=aoi))
    for path in _files(dataset, source):
        digest.update(f"{path.suffix} {path.stat().st_size} ".encode())
        digest.update(_content(path))
    return digest.hexdigest()[:32]


def glance_at(
    dataset: Any, source: SceneSource, *, plan: BandPlan, aoi: AreaOfInterest | None
) -> str:
    """As `fingerprint_of`, of sizes and a few bytes: cheap enough for every opening of an image.

    A file that was put in another's place is noticed; a change of a few pixels may not be.
    """
    digest = hashlib.sha256(_header(dataset, source, plan=plan, aoi=aoi))
    for path in _files(dataset, source):
        digest.update(f"{path.suffix} {path.stat().st_size} ".encode())
        digest.update(_sampled(path, steps=_GLANCES, length=_GLANCE_BYTES))
    return digest.hexdigest()[:32]


def _header(
    dataset: Any, source: SceneSource, *, plan: BandPlan, aoi: AreaOfInterest | None
) -> bytes:
    header = {
        "shape": [dataset.count, dataset.height, dataset.width],
        "dtypes": list(dataset.dtypes),
        "crs": dataset.crs.to_wkt() if dataset.crs else None,
        "transform": list(dataset.transform)[:6],
        "numbers": list(plan.numbers),
        "nodata": [repr(value) for value in plan.nodata],
        "alpha": plan.alpha,
        "manifest_crs": source.crs,
        "aoi": aoi.digest if aoi else None,  # not the file: QGIS writes into what it opens
    }
    return json.dumps(header, sort_keys=True).encode()


def _files(dataset: Any, source: SceneSource) -> list[Path]:
    """Local files of an image and its mask."""
    own = [name for name in dataset.files if not name.lower().endswith(_VOLATILE)]
    names = sorted(own) + ([source.mask] if source.mask else [])
    return [path for path in map(Path, names) if path.is_file()]


def _content(path: Path) -> bytes:
    if path.stat().st_size <= _WHOLE_BYTES:
        return bytes.fromhex(file_sha256(path))
    return _sampled(path, steps=_SAMPLES, length=_SAMPLE_BYTES)


def _sampled(path: Path, *, steps: int, length: int) -> bytes:
    """Hash of the start, the end and places between."""
    digest, last = hashlib.sha256(), max(path.stat().st_size - length, 0)
    with path.open("rb") as stream:
        for step in range(steps + 1):
            stream.seek(last * step // steps)
            digest.update(stream.read(length))
    return digest.digest()
