"""One cell of the published benchmark, replayed: the command gives the rows in the tree."""

import csv
from pathlib import Path

import pytest

from geohsal.config.simulation import load_simulation
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.simulate import simulate

PUBLISHED = Path(__file__).parents[1] / "benchmarks" / "results" / "synthetic.csv"
TOLERANCE = 0.08
"""Of mIoU: other processors and thread counts round differently, and training amplifies it."""


def _rows(path: Path) -> dict[tuple[str, str, str, str], dict[str, str]]:
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    return {(row["method"], row["strategy"], row["seed"], row["round"]): row for row in rows}


@pytest.mark.slow
def test_a_cell_of_the_synthetic_set_gives_its_published_rows(tmp_path: Path) -> None:
    config, simulation = load_simulation(
        "bench_synthetic_cpu",
        overrides=[
            "simulate.rounds=2",
            "simulate.seeds=[0]",
            "simulate.cells=[{method: geohsal, strategies: [plar]}]",
        ],
    )
    summary = simulate(
        write_landscape(tmp_path / "landscape"),
        tmp_path / "out",
        config=config,
        simulation=simulation,
        device="cpu",
    )
    found, published = _rows(summary.results), _rows(PUBLISHED)
    assert len(found) == 2
    for place, row in found.items():
        told = published[place]
        assert float(row["miou"]) == pytest.approx(float(told["miou"]), abs=TOLERANCE)
        assert float(row["oa"]) == pytest.approx(float(told["oa"]), abs=TOLERANCE)
        assert int(row["spent_pixels"]) == pytest.approx(int(told["spent_pixels"]), rel=0.1)
