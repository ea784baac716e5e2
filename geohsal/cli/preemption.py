"""Signals that ask a command to stop at the next good moment: SIGUSR2 and SIGTERM."""

import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from types import FrameType

from geohsal.config.launch import STOP_SIGNALS


@contextmanager
def listening(*, to_the_end: bool = False) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether a signal has come; until the end none kills the process.

    To be entered before torch is loaded: that takes seconds, in which a signal must not be lost.
    Outside the main thread, where signals cannot be handled, it always says no.

    Args:
        to_the_end: whether the signals stay without effect afterwards too, until the process ends:
            one of several processes must end with its own exit code, though its launcher ends them
            all as soon as the first has ended.
    """
    came = threading.Event()

    def note(signum: int, frame: FrameType | None) -> None:
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    _start_trackers()
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else handler)


def _start_trackers() -> None:
    """Start what cleans up after process pools, deaf to the signals, which go to whole groups."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # it has unblocked some
        with suppress(ImportError):  # joblib, which scikit-learn brings, has one of its own
            importlib.import_module(
                "joblib.externals.loky.backend.resource_tracker"
            ).ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
