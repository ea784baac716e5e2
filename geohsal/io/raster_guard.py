"""What a raster may lead to: its own bytes and files beside it, nothing else unless allowed.

Some formats are lists of other files or of addresses. Opened on a machine that may read more than
the person who sent them, they would bring that into a map.
"""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from rasterio.env import Env

from geohsal.errors import RasterError

ALLOW = "GEOHSAL_ALLOW_VRT"
"""Environment variable that lets VRTs name any file or address, if it is 1."""

INDIRECT = frozenset(
    {"DAAS", "DERIVED", "EEDA", "EEDAI", "GDALG", "GNMDatabase", "GNMFile", "GTI", "HTTP", "MRF"}
    | {"OGCAPI", "PLMOSAIC", "Rasterlite", "STACIT", "STACTA", "WCS", "WMS", "WMTS"}
)
"""GDAL drivers whose files are requests to a server, recipes, or lists of other files."""

MAX_VRT_BYTES = 64 * 2**20
MAX_DEPTH = 4

_NAMES = {"sourcefilename", "sourcedataset", "overviewfile", "filename", "dstalphafile"}
"""Elements of a VRT that name a file, in any case (GDAL does not care)."""

_CONNECTION = re.compile(r"^(/vsi|[A-Za-z][A-Za-z0-9+_.-]+:)|://|^<")
"""Anything but a plain path: virtual file systems, subdatasets, addresses, inline XML."""


def drivers(*, remote: bool) -> list[str]:
    """GDAL drivers that may open a raster; a VRT on a server cannot be checked before."""
    if os.environ.get(ALLOW) == "1":
        return []
    with Env() as environment:
        known = environment.drivers()
    return sorted(set(known) - INDIRECT - ({"VRT"} if remote else set()))


def refuse_leading_away(path: str) -> None:
    """Look into a local file before GDAL does; files that are no VRT pass.

    Raises:
        RasterError: a VRT names a file outside its folder, an address or a virtual file system,
            or cannot be understood.
    """
    if os.environ.get(ALLOW) != "1":
        _check(Path(path), top=Path(path).parent.resolve(), depth=0)


def _check(path: Path, *, top: Path, depth: int) -> None:
    text = _vrt_text(path)
    if text is None:
        return
    remedy = f"put its files beside it, convert it to a GeoTIFF, or set {ALLOW}=1 if you trust it"
    if depth > MAX_DEPTH:
        raise RasterError(f"{path}: VRTs within VRTs, more than {MAX_DEPTH} deep; {remedy}")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RasterError(f"{path}: a VRT that cannot be understood ({error}); {remedy}") from None
    for element in root.iter():
        if element.tag.rpartition("}")[2].lower() not in _NAMES or not (element.text or "").strip():
            continue
        named = (element.text or "").strip()
        relative = {k.lower(): v for k, v in element.attrib.items()}.get("relativetovrt") == "1"
        source = (path.parent / named if relative else Path(named)).resolve()
        if _CONNECTION.search(named) or not source.is_relative_to(top):
            raise RasterError(f"{path}: a VRT that names {named!r}, outside its folder; {remedy}")
        _check(source, top=top, depth=depth + 1)


def _vrt_text(path: Path) -> bytes | None:
    """The content of a VRT; None where the file is something else or cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
            if b"<vrtdataset" not in head.lower():
                return None
            return head + stream.read(MAX_VRT_BYTES)
    except OSError:
        return None  # GDAL says what is wrong with it
