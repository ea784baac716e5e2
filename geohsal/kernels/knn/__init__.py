"""k-nearest-neighbour scores: votes of the labelled pixels nearest to each pixel."""

from geohsal.kernels.knn.decision import ClassScores as ClassScores
from geohsal.kernels.knn.op import class_scores as class_scores
from geohsal.kernels.knn.op import knn_scores as knn_scores
from geohsal.kernels.knn.op import require_backend as require_backend
from geohsal.kernels.knn.operands import KnnOperands as KnnOperands
from geohsal.kernels.knn.operands import KnnScores as KnnScores
from geohsal.kernels.knn.operands import class_weights as class_weights
from geohsal.kernels.knn.reference import reference_scores as reference_scores
