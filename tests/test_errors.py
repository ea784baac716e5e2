"""Every expected failure can be sent from one process to another."""

import pickle
from collections.abc import Iterator

import pytest

from geohsal import errors
from geohsal.errors import GeohsalError

OWN = {"reason": "busy", "failures": {"west": "no file"}, "code": 85}
"""What the errors ask for beside their message."""


def kinds(root: type[GeohsalError]) -> Iterator[type[GeohsalError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


ALL = [kind for kind in kinds(GeohsalError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_it_was_sent(kind: type[GeohsalError]) -> None:
    asked = getattr(kind.__init__, "__annotations__", {})
    own = {name: value for name, value in OWN.items() if name in asked}
    sent = kind("here: this", **own)
    sent.args = ("process 1 of 2: here: this",)
    found = pickle.loads(pickle.dumps(sent))
    assert type(found) is kind
    assert str(found) == "process 1 of 2: here: this"
    assert vars(found) == own
    assert found.exit_code == kind.exit_code


def test_a_lost_process_is_no_wrong_data() -> None:
    assert errors.LostError.exit_code == 75
    assert {kind.exit_code for kind in ALL} == {2, 3, 4, 75, 85}
