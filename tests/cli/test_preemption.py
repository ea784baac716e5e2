"""Signals are noted, never lost, and the handlers of before come back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from geohsal.cli.preemption import listening
from geohsal.config.launch import STOP_SIGNALS as SIGNALS


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_does_not_kill(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in SIGNALS}
    with listening() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert {one: signal.getsignal(one) for one in SIGNALS} == before
    with listening() as again:
        assert not again()


def test_outside_the_main_thread_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    said: list[object] = []

    def work() -> None:
        with listening() as stop:
            said.extend([stop(), signal.getsignal(signal.SIGUSR2)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [False, before]


LAST_WORDS = """
import os, signal, sys
from geohsal.cli.preemption import listening
with listening(to_the_end=sys.argv[1] == "several"):
    pass
for number in (signal.SIGTERM, signal.SIGUSR2):
    os.kill(os.getpid(), number)  # as a launcher does when the first process has ended
sys.exit(3)
"""


@pytest.mark.parametrize(("processes", "code"), [("several", 3), ("one", -signal.SIGTERM)])
def test_one_of_several_processes_ends_with_its_own_code(processes: str, code: int) -> None:
    assert subprocess.run([sys.executable, "-c", LAST_WORDS, processes]).returncode == code


TRACKERS = """
import os, signal, time
from importlib import import_module
from geohsal.cli.preemption import listening
from geohsal.config.launch import STOP_SIGNALS
with listening():
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "still blocked"
    names = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")
    trackers = [import_module(name)._resource_tracker for name in names]
    pids = [one._pid for one in trackers]
    assert len(set(pids)) == 2 and None not in pids, pids
    time.sleep(1)  # until they have unblocked what they unblock
    for number in STOP_SIGNALS:
        os.killpg(os.getpid(), number)
    time.sleep(0.5)
    for one in trackers:
        one.ensure_running()
    assert [one._pid for one in trackers] == pids
"""


def test_signals_to_a_whole_group_leave_the_trackers_alive() -> None:
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", TRACKERS],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")
