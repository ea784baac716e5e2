"""Which settings a command works with: a file, a preset, or what the run already holds."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.config import Config


def new_settings(
    source: str | None,
    overrides: Sequence[str],
    *,
    seed: int | None,
    report: Report,
    method: str | None = None,
) -> "Config":
    """Settings for something new; the preset that is chosen where none is named is printed."""
    from geohsal.config import load_config

    if source is None:
        source = "default" if cuda_present() else "cpu-small"
        why = "a CUDA device is present" if source == "default" else "no CUDA device"
        report.line(f"settings: preset {source} ({why}); choose with -c")
    return load_config(source, overrides=_with_seed(overrides, seed), layer=_layer(method))


def run_settings(
    run_dir: Path,
    source: str | None,
    overrides: Sequence[str],
    *,
    seed: int | None,
    report: Report,
    method: str | None = None,
) -> "Config | None":
    """Settings asked for on top of a run, or of a new one; None: the run's own are meant."""
    from geohsal.config import load_config
    from geohsal.io.run import Run

    own = Run(path=run_dir).config
    changes = _with_seed(overrides, seed)
    if source is not None or not own.exists():
        return new_settings(source, overrides, seed=seed, report=report, method=method)
    if not changes and method is None:
        return None
    return load_config(own, overrides=changes, layer=_layer(method))


def _layer(method: str | None) -> "Mapping[str, Mapping[str, Any]]":
    """Settings of a named method, none without a name."""
    from geohsal.config.methods import find_method

    return {} if method is None else find_method(method).settings


def _with_seed(overrides: Sequence[str], seed: int | None) -> list[str]:
    return [*overrides, *([] if seed is None else [f"seed={seed}"])]


def cuda_present() -> bool:
    """Whether the driver knows a device; asks the driver, since torch takes seconds to load."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
