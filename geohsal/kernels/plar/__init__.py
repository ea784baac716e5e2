"""PLAR scores: nearest classes of each pixel by two distances, and what they decide."""

from geohsal.kernels.plar.op import Kernel as Kernel
from geohsal.kernels.plar.op import Prepared as Prepared
from geohsal.kernels.plar.op import plar_scores as plar_scores
from geohsal.kernels.plar.op import prepare as prepare
from geohsal.kernels.plar.op import resolve_kernel as resolve_kernel
from geohsal.kernels.plar.operands import NO_CLASS as NO_CLASS
from geohsal.kernels.plar.operands import Decision as Decision
from geohsal.kernels.plar.operands import PlarOperands as PlarOperands
from geohsal.kernels.plar.operands import PlarScores as PlarScores
from geohsal.kernels.plar.operands import Rule as Rule
from geohsal.kernels.plar.operands import fold_operands as fold_operands
from geohsal.kernels.plar.reference import reference_scores as reference_scores
