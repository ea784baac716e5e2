"""Started once per process: one of them fails; each writes what it was told.

rank_failure.py OUT FAILING KIND writes OUT/<rank>.txt; FAILING is the number of the process that
fails: with a DataError where KIND is said, with an error that nobody expects where it is unsaid.
"""

import os
import sys
from pathlib import Path

from geohsal.config.launch import find_launch
from geohsal.errors import DataError, GeohsalError, QuietError
from geohsal.training.ranks import joined


def main(out: Path, failing: int, kind: str) -> int:
    """Fail while the other process waits; gives the exit code of the command."""
    launch = find_launch(os.environ)
    try:
        with joined(launch, cuda=lambda: False) as ranks:
            assert ranks.gather(launch.rank) == [0, 1]
            assert ranks.largest(launch.rank) == 1
            if launch.rank == failing:
                raise DataError("the disk is gone") if kind == "said" else OSError("stale handle")
            ranks.gather("waits")
    except GeohsalError as error:
        said = f"{type(error).__name__}: {error}"
        (out / f"{launch.rank}.txt").write_text(said, "utf-8")
        return error.code if isinstance(error, QuietError) else error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
