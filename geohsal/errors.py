"""Every exception that geohsal raises on purpose, under one root; each leaf knows its exit code.

Exit codes are part of the command-line contract: 2 the request is wrong, 3 the data is wrong,
4 some scenes succeeded and others failed. Anything that is not a `GeohsalError` is a bug.
"""

from typing import ClassVar


class GeohsalError(Exception):
    """Root of all expected failures; the message says where, what was found and what to do."""

    exit_code: ClassVar[int] = 3


class RequestError(GeohsalError, ValueError):
    """The request is wrong: an option, the order of commands, a budget."""

    exit_code = 2


class ConfigError(RequestError):
    """Text of a configuration does not say what it must."""


class ManifestError(RequestError):
    """Text of a manifest does not say what it must."""


class RunError(RequestError):
    """A folder is not a run, or the run is not at the step that the request needs."""


class BudgetError(RequestError):
    """A budget cannot be read, has no meaning for these scenes, or buys nothing."""


class KernelError(RequestError):
    """A kernel or backend was asked for that cannot run on this machine or this shape."""


class DataError(GeohsalError, ValueError):
    """Input data is missing, unreadable or does not fit."""


class RasterError(DataError):
    """A raster is missing, cannot be read, or has the wrong bands, values or size."""


class GeoreferenceError(DataError):
    """A raster or a layer lies in the wrong place, or nowhere."""


class LabelError(DataError):
    """Labels or truth are missing, unreadable or do not fit their scene and classes."""


class ReviewError(DataError):
    """A reviewed file does not fit the round it came from."""


class ModelError(DataError):
    """A model folder, checkpoint or weights file is missing, damaged or does not fit."""


class PartialError(GeohsalError):
    """Some scenes (or cells) succeeded and others failed; `failures` maps each to one line."""

    exit_code = 4

    def __init__(self, message: str, *, failures: dict[str, str]) -> None:
        super().__init__(message)
        self.failures = failures
