"""What the tests of killed commands can see."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from killing import leftovers, snapshot

COUNT = """
import os, shutil, sys
from pathlib import Path
from types import SimpleNamespace
from killing import _Changes
home = Path(sys.argv[1])
counted = SimpleNamespace(value=0)
sys.addaudithook(_Changes(folder=str(home), last=None, counted=counted))
exec(sys.argv[2])
print(counted.value)
"""


@pytest.mark.parametrize(
    ("work", "changes"),
    [
        ("shutil.rmtree(home / 'tree')", 4),  # two files in two folders
        ("os.remove('a', dir_fd=os.open(home / 'tree', os.O_RDONLY))", 1),
        ("os.chdir(home); Path('tree/a').rename('b'); Path('b').write_text('x')", 2),
        ("os.ftruncate(os.open(home / 'tree/a', os.O_RDWR), 0)", 2),
        ("Path(home / 'tree/a').read_text()", 0),
        ("Path(f'{home}2').mkdir(); Path(f'{home}2/a').touch(); shutil.rmtree(f'{home}2')", 0),
    ],
)
def test_every_change_in_a_folder_is_counted(tmp_path: Path, work: str, changes: int) -> None:
    home = tmp_path / "home"
    (home / "tree" / "inner").mkdir(parents=True)
    for name in ("tree/a", "tree/inner/b"):
        (home / name).touch()
    argv = [sys.executable, "-c", COUNT, str(home), work]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert found.stdout == f"{changes}\n", found.stderr


def test_an_empty_folder_is_seen(tmp_path: Path) -> None:
    (tmp_path / ".x.part").mkdir()
    (tmp_path / "maps").mkdir()
    assert leftovers(tmp_path) == [".x.part/"]
    assert snapshot(tmp_path) == {".x.part/": "", "maps/": ""}
