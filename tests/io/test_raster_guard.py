"""Rasters that would lead to other files or addresses are refused before GDAL opens them."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geohsal.errors import RasterError
from geohsal.io.gdal import GDAL_ERRORS, open_raster

BAND = """<VRTDataset rasterXSize="4" rasterYSize="3">
  <GeoTransform>0, 2, 0, 0, 0, -2</GeoTransform>
  <VRTRasterBand dataType="Byte" band="1"><SimpleSource>
    <SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>1</SourceBand>
  </SimpleSource></VRTRasterBand>
</VRTDataset>"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A raster outside of the folder that was sent."""
    return raster(tmp_path / "secret.tif", 77)


def raster(path: Path, value: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=1, dtype="uint8",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as target:  # fmt: skip
        target.write(np.full((1, 3, 4), value, np.uint8))
    return path


def vrt(folder: Path, name: str, relative: int = 1, text: str = BAND) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(list(folder.iterdir()))}.vrt"
    path.write_text(text.format(name=name, relative=relative), "utf-8")
    return path


def value(path: Path) -> int:
    with open_raster(str(path)) as source:
        return int(source.read(1)[0, 0])


def test_a_vrt_of_files_beside_it_is_read(tmp_path: Path) -> None:
    raster(tmp_path / "sent" / "a.tif", 5)
    inner = vrt(tmp_path / "sent", "a.tif")
    assert value(inner) == 5
    assert value(vrt(tmp_path / "sent", inner.name)) == 5
    assert value(vrt(tmp_path / "sent", str(tmp_path / "sent" / "a.tif"), relative=0)) == 5


@pytest.mark.parametrize(
    "name",
    [
        "../secret.tif",
        "{top}/secret.tif",
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "http://127.0.0.1:9/a.tif",
        "/vsizip/x.zip/a.tif",
        'NETCDF:"a.nc":x',
        "&lt;VRTDataset/&gt;",
        "link.tif",
    ],
)
def test_a_vrt_that_leads_away_is_refused(tmp_path: Path, secret: Path, name: str) -> None:
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "link.tif").symlink_to(secret)
    path = vrt(sent, name.replace("{top}", str(tmp_path)))
    with pytest.raises(RasterError, match=r"outside its folder; .*GEOHSAL_ALLOW_VRT=1") as refused:
        open_raster(str(path))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        BAND.replace("SourceFilename", "sourceFILENAME"),
        BAND.replace("<SourceBand>1</SourceBand>", "<!-- --><SourceBand>1</SourceBand>"),
        '<?xml version="1.0"?>\n' + BAND,
        BAND.replace("<VRTDataset ", '<VRTDataset xmlns:x="u" '),
    ],
)
def test_other_spellings_are_refused_too(tmp_path: Path, secret: Path, text: str) -> None:
    with pytest.raises(RasterError, match="outside its folder"):
        open_raster(str(vrt(tmp_path / "sent", "../secret.tif", text=text)))


def test_a_vrt_by_another_name_is_one(tmp_path: Path, secret: Path) -> None:
    path = vrt(tmp_path / "sent", "../secret.tif").rename(tmp_path / "sent" / "a.tif")
    with pytest.raises(RasterError, match="outside its folder"):
        open_raster(str(path))


def test_an_inner_vrt_leads_away_no_further(tmp_path: Path, secret: Path) -> None:
    inner = vrt(tmp_path / "sent", "../secret.tif")
    with pytest.raises(RasterError, match="outside its folder"):
        open_raster(str(vrt(tmp_path / "sent", inner.name)))


def test_a_vrt_of_itself_ends(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="within VRTs"):
        open_raster(str(vrt(tmp_path / "sent", "0.vrt")))


def test_who_trusts_a_vrt_may_say_so(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOHSAL_ALLOW_VRT", "1")
    assert value(vrt(tmp_path / "sent", "../secret.tif")) == 77


@pytest.mark.parametrize(
    "text",
    [
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${{z}}</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>1"
        "</LowerRightX><LowerRightY>1</LowerRightY><SizeX>1</SizeX><SizeY>1</SizeY></DataWindow>"
        "</GDAL_WMS>",
        "<GDALTileIndexDataset><IndexDataset>../secret.gpkg</IndexDataset></GDALTileIndexDataset>",
    ],
)
def test_requests_to_servers_and_lists_of_files_are_no_rasters(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text, "utf-8")
    with pytest.raises(GDAL_ERRORS, match="not recognized"):
        open_raster(str(path))
    assert os.environ.get("GEOHSAL_ALLOW_VRT") is None
