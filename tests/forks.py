"""Processes of their own for commands: forks of a server that has imported what is slow to import.

The server is one for all of a test process, and so is what it imports first.
"""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [f"geohsal.workflows.{name}" for name in ("tile", "train", "query", "predict", "export")]
)
