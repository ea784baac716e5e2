"""Odd and broken rasters from elsewhere: each works, or ends in one line with exit code 3."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import rasterio
from boxed import Ended, run_boxed
from raster_checks import check_maps, check_tiled
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from tiny_model import model_of, train_one_band, write_manifest

pytestmark = pytest.mark.real

SECONDS = 150.0
"""For one file; most take one or two."""

PEAK_MIB = 1024
"""For one file; importing everything takes 600."""

OPENED = "cannot be opened"
DAMAGED = "the file is damaged or incomplete: get it again"
NO_CRS = 'has no CRS; add crs: "EPSG:..."'
NOWHERE = "has neither a CRS nor a transform; georeference it, or set crs: local"
POINTS = "only control points (GCPs or RPCs) say where it lies; warp it first"
NO_PIXEL = "no valid pixel; check nodata, mask and aoi"

REFUSED = {
    **dict.fromkeys(
        ("empty.tif", "header_only_8bytes.tif", "html_error_page.tif", "ifd_offset_past_end.tif",
         "text_pretending.tif", "truncated_half.tif"), OPENED,
    ),
    **dict.fromkeys(
        ("flipped_bytes_in_data.tif", "truncated_data_valid_header.tif", "corrupt.tif"), DAMAGED
    ),
    **dict.fromkeys(
        ("no_crs_but_geotransform.tif", "float.tif", "float32.tif", "float_nan.tif",
         "rotated.tif"), NO_CRS,
    ),
    **dict.fromkeys(("no_georef_at_all.tif", "389225main_sw_1965_1024.jpg"), NOWHERE),
    **dict.fromkeys(("gcps_only_utm.tif", "cog_gcps_ovr.tif", "white-gemini-iv.vrt"), POINTS),
    "complex64.tif": "holds complex numbers; write amplitude or real bands first",
    "crs_but_no_geotransform.tif": "has a CRS but no transform, so its pixels lie nowhere",
    "sparse_200000x200000.tif": "are more than tile.max_pixels (2000000000); cut it",
}  # fmt: skip
"""What is said of a file by both commands."""

EMPTY = ("all_nodata.tif", "all-nodata.tif", "inverted_lat.tif")
"""Without a single valid pixel: nothing to tile, and maps that say so."""

AS_BAND = ("nir_mislabelled_as_alpha_uint8.tif",)
"""Files whose alpha band is a band: the manifest names as many as the file has."""


@dataclass(frozen=True, slots=True)
class OddFile:
    """A file, the bands that manifest and model name, and their numbers in the file."""

    path: Path
    bands: tuple[str, ...]
    numbers: tuple[int, ...]


def described(path: Path) -> OddFile:
    """The bands of a file by their descriptions, those without one by number; not its alpha."""
    try:
        with rasterio.open(path) as source:
            numbers = tuple(
                number
                for number, color in zip(source.indexes, source.colorinterp, strict=True)
                if color is not ColorInterp.alpha or path.name in AS_BAND
            )
            names = [source.descriptions[number - 1] or f"b{number}" for number in numbers]
    except RasterioIOError:
        return OddFile(path, ("b1",), (1,))
    return OddFile(path, tuple(names), numbers)


@pytest.fixture(scope="module")
def odd_files(real_data: Path) -> list[OddFile]:
    """All of them, the large ones first."""
    folder = real_data / "odd_rasters"
    lines = (folder / "expected.txt").read_text("utf-8").splitlines()
    paths = [next(folder.rglob(line.split(" ", 1)[0])) for line in lines]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        found = [described(path) for path in paths]
    return sorted(found, key=lambda odd: -odd.path.stat().st_size)


def both_commands(odd: OddFile, folder: Path, model: Path) -> list[Ended]:
    scene: dict[str, object] = {"id": "odd", "image": str(odd.path)}
    manifest = write_manifest(folder / "manifest.yaml", bands=odd.bands, scenes=[scene])
    tile = ["tile", str(manifest), "-o", str(folder / "run"), "-q"]
    predict = ["predict", "--model", str(model), str(odd.path), "-o", str(folder / "maps")]
    return run_boxed([tile, [*predict, "--device", "cpu", "-q"]], folder / "box", seconds=SECONDS)


def test_every_file_works_or_ends_in_one_line(
    odd_files: list[OddFile], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    taught = train_one_band(tmp_path)
    models = {
        bands: model_of(bands, like=taught, folder=tmp_path / f"model{number}")
        for number, bands in enumerate({odd.bands: None for odd in odd_files})
    }
    wrong = {}

    def outcome(odd: OddFile) -> tuple[str, list[Ended]]:
        folder = tmp_path / odd.path.name
        ended: list[Ended] = []
        try:
            ended = both_commands(odd, folder, models[odd.bands])
            judge(odd, folder, *ended)
        except AssertionError as error:
            wrong[odd.path.name] = str(error)
        return odd.path.name, ended

    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(pool.map(outcome, odd_files))
    for name, ended in outcomes.items():
        record_property(name, [(one.code, round(one.seconds, 1), one.peak_mib) for one in ended])
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
    assert len(outcomes) == 102
    assert outcomes.keys() >= {*REFUSED, *EMPTY, *AS_BAND}


def judge(odd: OddFile, folder: Path, tiled: Ended, predicted: Ended) -> None:
    """Raises AssertionError where one of the two ended otherwise than it must."""
    name = odd.path.name
    assert max(tiled.peak_mib, predicted.peak_mib) < PEAK_MIB
    if name in REFUSED:
        for ended in (tiled, predicted):
            check_refused(ended, odd.path, REFUSED[name])
    if name in EMPTY:
        check_refused(tiled, odd.path, NO_PIXEL)
    if name in REFUSED or name in EMPTY:
        assert not (folder / "run").exists()
    else:
        assert tiled.code == 0, tiled.text
        check_tiled(folder / "run", "odd", odd.path, odd.numbers)
    if name in REFUSED:
        assert not list(folder.glob("maps/[!.]*"))  # .predict keeps what the next call goes on with
    else:
        assert predicted.code == 0, predicted.text
        check_maps(folder / "maps", odd.path.stem, odd.path, odd.numbers)


def check_refused(ended: Ended, path: Path, told: str) -> None:
    """One line that names the file, with what was found and what to do."""
    assert ended.code == 3, ended.text
    assert len(ended.lines) == 1, ended.text
    assert ended.text.startswith("geohsal: error: scene ")
    assert str(path) in ended.text
    assert told in ended.text
