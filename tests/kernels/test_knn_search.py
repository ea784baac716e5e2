"""The search proves its neighbours, or says that it cannot."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from geohsal.kernels.knn.reference import nearest_by_definition
from geohsal.kernels.knn.search import Shortlist, _search, nearest
from geohsal.kernels.knn.torch_path import TorchPass


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _by_hand(points: Tensor, bank: Tensor, count: int) -> list[list[int]]:
    """The definition once more, in plain Python."""
    found = []
    for point in points.double().tolist():
        gaps = [
            (sum((x - y) ** 2 for x, y in zip(point, row, strict=True)), number)
            for number, row in enumerate(bank.double().tolist())
        ]
        found.append([number for _, number in sorted(gaps)[:count]])
    return found


def test_the_definition_is_that_of_plain_python():
    points, bank = _normal(9, 3), _normal(40, 3, seed=1)
    bank[20:30] = bank[:10]  # ties
    assert nearest_by_definition(points, bank, 12).row.tolist() == _by_hand(points, bank, 12)


@pytest.mark.parametrize("group", [None, 1, 4, 8, 16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (37, 127, 3), (300, 5000, 32), (123, 1025, 64)])
def test_every_grouping_finds_the_same_and_proves_it(shape, group):
    pixels, size, dim = shape
    points, bank = _normal(pixels, dim), _normal(size, dim, seed=1)
    count = min(17, size)
    wanted = nearest_by_definition(points, bank, count)
    found, proven = _search(points, bank, count, TorchPass(bank, group=group))
    assert torch.equal(found.row, wanted.row)
    torch.testing.assert_close(found.distance, wanted.distance, rtol=1e-12, atol=0)
    assert proven.float().mean() > 0.99


def test_ties_and_copies_keep_the_order_of_the_bank():
    points = _normal(50, 4).round()
    bank = torch.cat([_normal(600, 4, seed=1).round(), points[:40].repeat(30, 1)])
    wanted = nearest_by_definition(points, bank, 17)
    found = nearest(points, bank, 17, (TorchPass,))
    assert torch.equal(found.row, wanted.row)
    assert torch.equal(found.distance, wanted.distance)
    _, proven = _search(points, bank, 17, TorchPass(bank))
    assert not proven.all()  # more copies than places: no proof, so the definition is asked


def test_a_cluster_far_from_the_center_is_not_guessed():
    """Float32 scores blur these distances; the proof fails, the answer is right all the same."""
    points, bank = 300 + 0.01 * _normal(60, 16), 300 + 0.01 * _normal(3000, 16, seed=1)
    _, proven = _search(points, bank, 17, TorchPass(bank))
    assert proven.float().mean() < 0.1
    wanted = nearest_by_definition(points, bank, 17)
    assert torch.equal(nearest(points, bank, 17, (TorchPass,)).row, wanted.row)


@dataclass(slots=True)
class _Forgetful:
    """Leaves out the best candidate and says so."""

    inner: TorchPass
    block_pixels: int = 64

    def shortlist(self, points: Tensor, count: int) -> Shortlist:
        found = self.inner.shortlist(points, count + 1)
        left_out = -torch.full((len(points),), torch.inf)
        return Shortlist(found.row[:, 1:], left_out)

    def error(self, size: Tensor, reach: Tensor) -> Tensor:
        return self.inner.error(size, reach)


def _forgetful(bank: Tensor) -> _Forgetful:
    return _Forgetful(TorchPass(bank))


def test_a_bad_first_pass_is_caught():
    points, bank = _normal(100, 8), _normal(3000, 8, seed=1)
    wanted = nearest_by_definition(points, bank, 17)
    for passes in ((_forgetful,), (_forgetful, TorchPass)):
        assert torch.equal(nearest(points, bank, 17, passes).row, wanted.row)
