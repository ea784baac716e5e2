"""The import rule of the rooms, and what the entry point may load."""

from importlinter.cli import lint_imports


def test_the_import_contracts_are_kept(capsys) -> None:  # type: ignore[no-untyped-def]
    code = lint_imports(no_cache=True)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "Contracts: 3 kept, 0 broken." in printed
