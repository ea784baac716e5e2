"""Every exception that geohsal raises on purpose, under one root; each leaf knows its exit code.

Exit codes are part of the command-line contract: 2 the request is wrong, 3 the data is wrong,
4 some scenes succeeded and others failed, 75 other processes have not done their share yet, were
lost or are still at work, 85 the command was told to stop and can go on. Anything that is not a
`GeohsalError` is a bug.
"""

from typing import Any, ClassVar, Self

FINAL_CODES = (2, 3, 4)
"""Exit codes after which another start of the same command would end in the same way."""


class GeohsalError(Exception):
    """Root of all expected failures; the message says where, what was found and what to do."""

    exit_code: ClassVar[int] = 3

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes, whatever their `__init__` asks for."""
        return type(self)._again, (self.args, vars(self))

    @classmethod
    def _again(cls, args: tuple[Any, ...], state: dict[str, Any]) -> Self:
        error = cls.__new__(cls, *args)
        vars(error).update(state)
        return error


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


class WriteError(DataError):
    """A file cannot be written: no space, no permission; says nothing of the data."""


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


class SlurmError(GeohsalError):
    """A command of Slurm is missing, failed or did not answer; `reason` is what it said."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class PartialError(GeohsalError):
    """Some scenes (or cells) succeeded and others failed; `failures` maps each to one line."""

    exit_code = 4

    def __init__(self, message: str, *, failures: dict[str, str]) -> None:
        super().__init__(message)
        self.failures = failures


class PartsMissingError(GeohsalError):
    """Results that other processes are to make are not all there yet."""

    exit_code = 75


class LostError(GeohsalError):
    """A process that worked together with this one is gone; the same command goes on."""

    exit_code = 75


class BusyError(GeohsalError):
    """Another command is changing the same run; the same command works once that one has ended."""

    exit_code = 75


class PreemptedError(GeohsalError):
    """The command was told to stop and saved its state; the same command goes on from there."""

    exit_code = 85


class QuietError(GeohsalError):
    """One of several processes ends because of what another one says; `code` is its exit code."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code
