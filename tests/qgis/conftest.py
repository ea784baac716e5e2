"""A real QGIS, asked from outside: it runs under the system's own Python."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PYTHON = "/usr/bin/python3"
SIDE = Path(__file__).with_name("pyqgis_side.py")
AskQgis = Callable[..., Any]


@pytest.fixture(scope="session")
def qgis(tmp_path_factory: pytest.TempPathFactory) -> AskQgis:
    """`qgis(question, **arguments)` asks `pyqgis_side.py` in a process of its own."""
    home = tmp_path_factory.mktemp("qgis-home")
    home.chmod(0o700)
    inherited = {name: os.environ[name] for name in ("PATH", "TMPDIR", "TZ") if name in os.environ}
    environment = inherited | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "QT_QPA_PLATFORM": "offscreen",
        "LANG": "C.UTF-8",
    }

    def ask(question: str, **arguments: object) -> Any:
        answer = home / "answer.json"
        answer.unlink(missing_ok=True)
        done = subprocess.run(
            [PYTHON, str(SIDE), question, json.dumps(arguments, default=str), str(answer)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(answer.read_text("utf-8"))

    if (
        not Path(PYTHON).exists()
        or subprocess.run(
            [PYTHON, "-c", "import qgis.core, osgeo_utils.samples.validate_gpkg"],
            env=environment,
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip(f"no QGIS for {PYTHON}: apt-get install --no-install-recommends python3-qgis")
    return ask
