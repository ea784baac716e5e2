"""Fingerprints of input files: cheap enough for large scenes, sharp enough to notice a change."""

import hashlib
import json
from pathlib import Path
from typing import Any

from geohsal.errors import DataError
from geohsal.io.aoi import AreaOfInterest
from geohsal.io.bands import BandPlan
from geohsal.io.manifest import SceneSource

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
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    own = [name for name in dataset.files if not name.lower().endswith(_VOLATILE)]
    for name in sorted(own) + ([source.mask] if source.mask else []):
        path = Path(name)
        if path.is_file():
            digest.update(f"{path.suffix} {path.stat().st_size} ".encode())
            digest.update(_content(path))
    return digest.hexdigest()[:32]


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= _WHOLE_BYTES:
        return bytes.fromhex(file_sha256(path))
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for step in range(_SAMPLES + 1):
            stream.seek((size - _SAMPLE_BYTES) * step // _SAMPLES)
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.digest()
