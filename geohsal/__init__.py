"""geohsal: land-cover maps from very few labels, with a person in QGIS where it pays.

The functions below are what the commands of the same name call. They are loaded when first used,
so that importing the package costs nothing. `geohsal.query` is both a room and a function: once the
room is loaded the name stands for it, and calling the room calls the function.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geohsal.workflows.evaluate import evaluate
    from geohsal.workflows.export import export
    from geohsal.workflows.ingest import ingest
    from geohsal.workflows.predict import predict
    from geohsal.workflows.query import query
    from geohsal.workflows.tile import tile
    from geohsal.workflows.train import train

__version__ = "0.1.0"
__all__ = ["evaluate", "export", "ingest", "predict", "query", "tile", "train"]


def __getattr__(name: str) -> Any:
    """The public function `name`, imported on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'geohsal' has no attribute {name!r}")
    return getattr(import_module(f"geohsal.workflows.{name}"), name)


class _Package(ModuleType):
    """Makes the room `query` callable when the import machinery hangs it into the package."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "query" and isinstance(value, ModuleType):
            value.__class__ = _QueryRoom
        super().__setattr__(name, value)


class _QueryRoom(ModuleType):
    """The package `geohsal.query`, callable as the public function of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("geohsal.workflows.query").query(*args, **kwargs)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
