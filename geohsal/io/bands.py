"""Which band of a file is which: by the manifest, by descriptions, or by the file's order."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from geohsal.errors import RasterError

_EMPTY_NAMES = re.compile(r"^(band|layer|lyr)?[ _.-]*\d*$", re.IGNORECASE)
"""Descriptions that say no more than a number: "Band 1", "lyr.2", "3"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPlan:
    """What to read from a file.

    `numbers` (from 1) follow the manifest's order, `nodata` is one value per band (None: none;
    NaN is always invalid and needs no entry), `alpha` the band that masks, `masked` whether the
    file has a mask of its own, and `dtype` what pixels are read as.
    """

    numbers: tuple[int, ...]
    nodata: tuple[float | int | None, ...]
    alpha: int | None
    masked: bool
    dtype: np.dtype[Any]

    @property
    def pixels_tell(self) -> bool:
        """Whether validity depends on pixel values."""
        return self.dtype.kind == "f" or any(value is not None for value in self.nodata)


def plan_bands(
    dataset: Any,
    bands: tuple[str, ...],
    *,
    numbers: dict[str, int] | None,
    nodata: float | None,
    where: str,
) -> BandPlan:
    """How the manifest's bands are read from an open dataset.

    Args:
        dataset: open for reading.
        bands: the manifest's names, in the network's order.
        numbers: the scene's `bands:` key.
        nodata: the scene's `nodata:` key; replaces the file's own.
        where: opens every message.

    Raises:
        RasterError: a band is missing, unclear or of complex numbers.
    """
    if dataset.count == 0:
        raise RasterError(f"{where}: holds no bands, only parts; name one of them as the image")
    chosen = _chosen(dataset, bands, numbers, where=where)
    kinds = {dataset.dtypes[number - 1] for number in chosen}
    if any(kind.startswith("complex") for kind in kinds):
        raise RasterError(f"{where}: holds complex numbers; write amplitude or real bands first")
    alpha = _alpha(dataset, chosen)
    if alpha is not None:
        kinds.add(dataset.dtypes[alpha - 1])
    dtype = np.dtype(kinds.pop() if len(kinds) == 1 else "float64")
    own = [dataset.nodatavals[number - 1] for number in chosen]
    values = own if nodata is None else [nodata] * len(chosen)
    return BandPlan(
        numbers=chosen,
        nodata=tuple(_comparable(value, dtype) for value in values),
        alpha=alpha,
        masked=_masked(dataset, chosen),
        dtype=dtype,
    )


def _chosen(
    dataset: Any, bands: tuple[str, ...], numbers: dict[str, int] | None, *, where: str
) -> tuple[int, ...]:
    if numbers is not None:
        beyond = {name: number for name, number in numbers.items() if number > dataset.count}
        if beyond:
            name, number = next(iter(beyond.items()))
            raise RasterError(
                f"{where}: bands: {name} is number {number}, but the file has {dataset.count} "
                f"band{'s' if dataset.count > 1 else ''}"
            )
        return tuple(numbers[name] for name in bands)
    found = _by_description(dataset, bands) or _by_order(dataset, bands)
    if found is None:
        raise RasterError(
            f"{where}: cannot tell which band is which: the manifest wants {', '.join(bands)}; "
            f"the file has {_described(dataset)}; add bands: {{{bands[0]}: 1, ...}} to the scene"
        )
    return found


def _by_description(dataset: Any, bands: tuple[str, ...]) -> tuple[int, ...] | None:
    """Numbers of the bands whose descriptions are the manifest's names; each exactly once."""
    names = [(text or "").strip().casefold() for text in dataset.descriptions]
    wanted = [name.casefold() for name in bands]
    if any(names.count(name) != 1 for name in wanted):
        return None
    return tuple(names.index(name) + 1 for name in wanted)


def _by_order(dataset: Any, bands: tuple[str, ...]) -> tuple[int, ...] | None:
    """The file's own order, where nothing in the file speaks against it.

    An alpha band counts as a band only where the manifest has as many bands as the file. Colour
    tags speak only if they name the manifest's own words in another order: GDAL tags any 8-bit
    file of three bands red, green, blue.
    """
    numbers = tuple(range(1, dataset.count + 1))
    if len(numbers) != len(bands):
        numbers = tuple(n for n in numbers if dataset.colorinterp[n - 1] is not ColorInterp.alpha)
    if len(numbers) != len(bands):
        return None
    for number, name in zip(numbers, bands, strict=True):
        text = (dataset.descriptions[number - 1] or "").strip()
        if not _EMPTY_NAMES.match(text) and text.casefold() != name.casefold():
            return None
    wanted = [name.casefold() for name in bands]
    colors = [dataset.colorinterp[number - 1].name for number in numbers]
    told = [color for color in colors if color in wanted and color != "alpha"]
    agree = all(colors.index(color) == wanted.index(color) for color in told)
    return numbers if agree else None


def _described(dataset: Any) -> str:
    shown = []
    pairs = zip(dataset.descriptions, dataset.colorinterp, strict=True)
    for number, (text, color) in enumerate(pairs, start=1):
        tag = "" if color in (ColorInterp.undefined, ColorInterp.gray) else f" ({color.name})"
        shown.append(f"{number} {text!r}{tag}" if text else f"{number} without description{tag}")
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return ", ".join(shown[:12]) + more


def _alpha(dataset: Any, chosen: tuple[int, ...]) -> int | None:
    """The alpha band; not where the manifest uses it: GDAL calls a fourth 8-bit band alpha."""
    for number, color in enumerate(dataset.colorinterp, start=1):
        if color is ColorInterp.alpha and number not in chosen:
            return number
    return None


def _masked(dataset: Any, chosen: tuple[int, ...]) -> bool:
    """Whether the file has a mask other than its alpha band and its nodata value."""
    flags = set(dataset.mask_flag_enums[chosen[0] - 1])
    if MaskFlags.alpha in flags or MaskFlags.all_valid in flags:
        return False
    return MaskFlags.per_dataset in flags or MaskFlags.nodata not in flags


def _comparable(value: float | None, dtype: np.dtype[Any]) -> float | int | None:
    """A nodata value as pixels of this type can equal it; None where they cannot."""
    if value is None or np.isnan(value):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(value))
    limits = np.iinfo(dtype)
    fits = float(value).is_integer() and limits.min <= value <= limits.max
    return int(value) if fits else None
