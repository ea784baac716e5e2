"""Problems for the PLAR operator."""

from collections.abc import Callable

import pytest
from plar_cases import Problem, make_problem

ProblemFactory = Callable[..., Problem]


@pytest.fixture(name="make_problem")
def _make_problem() -> ProblemFactory:
    return make_problem
