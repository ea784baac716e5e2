"""Runs the Triton first pass on the CPU; started with TRITON_INTERPRET=1 by test_knn_triton.py."""

import sys

import torch

from geohsal.kernels.knn.reference import nearest_by_definition
from geohsal.kernels.knn.search import _search, nearest
from geohsal.kernels.knn.triton_kernel import TritonPass

SHAPES = [(1, 3, 1, 1.0), (37, 2500, 7, 1.0), (150, 4500, 40, 30.0), (130, 2048, 200, 1.0)]

for pixels, size, dim, spread in SHAPES:
    generator = torch.Generator().manual_seed(size)
    points = spread * torch.randn(pixels, dim, generator=generator)
    bank = spread * torch.randn(size, dim, generator=generator)
    points[0] = 1e5 * spread  # beyond half precision
    count = min(17, size)
    wanted = nearest_by_definition(points, bank, count)
    found, proven = _search(points, bank, count, TritonPass(bank))
    assert torch.equal(found.row[proven], wanted.row[proven]), (pixels, size, dim)
    assert pixels == 1 or proven.float().mean() > 0.6, (pixels, size, dim, proven.float().mean())
    assert pixels == 1 or not proven[0]
    assert torch.equal(nearest(points, bank, count, (TritonPass,)).row, wanted.row)
sys.stdout.write("all shapes agree")
