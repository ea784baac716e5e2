"""The import rule of the rooms, and what the entry point may load."""

import logging
from collections.abc import Iterator

import pytest
from importlinter.cli import lint_imports


@pytest.fixture
def loggers_kept() -> Iterator[None]:
    """The linter configures logging and switches existing loggers off: undo that."""
    known = [item for item in logging.root.manager.loggerDict.values() if hasattr(item, "disabled")]
    before = [(item, item.disabled) for item in known]
    yield
    for item, disabled in before:
        item.disabled = disabled


@pytest.mark.usefixtures("loggers_kept")
def test_the_import_contracts_are_kept(capsys) -> None:  # type: ignore[no-untyped-def]
    code = lint_imports(no_cache=True)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "Contracts: 3 kept, 0 broken." in printed
