"""A tiny synthetic landscape, made once."""

from pathlib import Path

import pytest
from tiny_run import TINY_SETTINGS

from geohsal.workflows.landscape import write_landscape


@pytest.fixture(scope="session")
def tiny_landscape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a small synthetic landscape; settings.yaml lies beside it."""
    folder = tmp_path_factory.mktemp("landscape")
    manifest = write_landscape(folder, shape=(192, 224))
    (folder / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
    return manifest
