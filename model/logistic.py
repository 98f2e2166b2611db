"""Multinomial logistic regression, fitted to its minimum.

Axes: N sample, D feature, E dimension of the samples' span, F these and a 1 whose weight is the bias,
K class, S class that the labels show.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor, nn

from model.device import float64, off_mps
from model.features import Features

# The largest entry of the gradient at which a fit ends, by coordinates in which the loss curves by about 1.
TOLERANCE = 1e-7
# At least so near it is where the next lower loss differs by less than float64 tells.
TOLERANCE_OF_ROUNDING = 1e-5
# And at which one ends that another goes on from: see `fit_linear`.
TOLERANCE_ON_THE_WAY = 1e-3
# Where hundreds are usual.
MOST_ITERATIONS = 20_000


class LinearClassifier(nn.Module):
    """Multinomial logistic regression on standardised features. penalty: which it was fitted with."""

    mean_D: Tensor
    deviation_D: Tensor

    def __init__(self, train: Features, num_classes: int, penalty: float) -> None:
        super().__init__()
        self.penalty = penalty
        self.register_buffer("mean_D", train.x_ND.mean(0))
        self.register_buffer("deviation_D", _deviations(train))
        self.linear = nn.Linear(train.x_ND.shape[1], num_classes, device=train.x_ND.device)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Scores (N, K)."""
        scores_NK: Tensor = self.linear(self.standardise(x_ND))
        return scores_NK

    @torch.no_grad()
    def scores(self, x_ND: Tensor) -> Tensor:
        """As `forward`, of a classifier that is fitted."""
        scores_NK: Tensor = self(x_ND)
        return scores_NK

    def standardise(self, x_ND: Tensor) -> Tensor:
        """Zero mean and unit deviation over the training samples: of each feature, or of all where they are
        scaled already."""
        return (x_ND - self.mean_D) / self.deviation_D


def _deviations(train: Features) -> Tensor:
    deviation_D = train.x_ND.std(0, correction=0)
    if train.scaled:
        deviation_D = deviation_D.square().mean().sqrt().expand_as(deviation_D)
    return deviation_D.clamp_min(1e-6)


def fit_linear(train: Features, num_classes: int, penalty: float) -> LinearClassifier:
    """The minimum of cross-entropy plus penalty/2 times the squared weights; no randomness in it.

    In three fits, of which the first two only come near: how the loss curves there is how it does at the end.
    """
    way = ((10 * penalty, TOLERANCE_ON_THE_WAY), (penalty, TOLERANCE_ON_THE_WAY), (penalty, TOLERANCE))
    *_, fitted = fit_path(train, num_classes, way)
    return fitted


def fit_path(
    train: Features, num_classes: int, way: Iterable[tuple[float, float]]
) -> Iterator[LinearClassifier]:
    """One classifier for each penalty, to its tolerance, when it is asked for; each fit begins where the one
    before ended.

    Classes without a label take no part, as if there were none: their score is -inf. In float64, on the CPU
    for devices that have none.
    """
    x_NF, basis_DE = _standardised(train)
    shown_S, labels_N = torch.unique(train.labels_N.to(x_NF.device), return_inverse=True)
    weight_SF, covariance_FF = x_NF.new_zeros(len(shown_S), x_NF.shape[1]), x_NF.T @ x_NF / len(x_NF)
    for penalty, tolerance in way:
        penalty_F = F.pad(x_NF.new_full((x_NF.shape[1] - 1,), penalty), (0, 1))
        probability_NS = (x_NF @ weight_SF.T).softmax(1)
        spread = (probability_NS * (1 - probability_NS)).mean().clamp_min(1e-9)
        curvature_FF = spread * covariance_FF
        curvature_FF.diagonal().add_(penalty_F)
        root_FF = torch.linalg.cholesky(curvature_FF)
        weight_SF = _minimum(x_NF, labels_N, penalty_F, weight_SF, root_FF, tolerance)
        fitted = LinearClassifier(train, num_classes, penalty)
        with torch.no_grad():
            shown = shown_S.to(train.labels_N.device)
            weight_SE, bias_S = weight_SF[:, :-1], weight_SF[:, -1]
            weight_SD = weight_SE if basis_DE is None else weight_SE @ basis_DE.T
            fitted.linear.weight[shown] = weight_SD.to(fitted.linear.weight)
            fitted.linear.bias.fill_(-math.inf)[shown] = bias_S.to(fitted.linear.bias)
        yield fitted


def _standardised(train: Features) -> tuple[Tensor, Tensor | None]:
    """The features and a 1 beside them, float64 (N, F). Where there are more of them than samples, the best
    weights lie in the samples' span: then by its directions (D, E), which are given as well."""
    (count, size), mean_D, deviation_D = train.x_ND.shape, train.x_ND.mean(0), _deviations(train)
    x_NF = float64(train.x_ND[:1]).new_ones(count, size + 1)
    # Part by part: the whole, twice, may be more than there is memory for.
    for to_nF, x_nD in zip(x_NF.split(4096), train.x_ND.split(4096), strict=True):
        to_nF[:, :-1] = off_mps((x_nD - mean_D) / deviation_D)
    if size <= count:
        return x_NF, None
    basis_DE = _span(x_NF[:, :-1])
    return F.pad(x_NF[:, :-1] @ basis_DE, (0, 1), value=1.0), basis_DE


def _minimum(
    x_NF: Tensor, labels_N: Tensor, penalty_F: Tensor, weight_SF: Tensor, root_FF: Tensor, tolerance: float
) -> Tensor:
    """The best weights, from those given on, by SciPy's L-BFGS.

    Features are correlated, and the loss curves a thousand times more along some of their mixtures than
    along others: by the weights W themselves L-BFGS does not arrive in hundreds of steps. It is shown W R
    instead, by which the loss curves about alike: R is the root of the curvature by the weights of one class,
    about (the covariance of the features times the mean p (1 - p) of the probabilities, and the penalty).
    Raises RuntimeError if it does not arrive.
    """

    # A product with as few rows as there are classes makes use of all threads; to solve for them does not.
    unrooted_FF = torch.linalg.solve_triangular(root_FF, torch.eye(len(root_FF)).to(root_FF), upper=False)

    def weights(rooted: Tensor) -> Tensor:
        found_SF: Tensor = rooted.view_as(weight_SF) @ unrooted_FF
        return found_SF

    def loss_and_gradient(rooted: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.tensor(rooted, device=x_NF.device, requires_grad=True)
        weight_SF = weights(at)
        loss = F.cross_entropy(x_NF @ weight_SF.T, labels_N) + (penalty_F * weight_SF.square()).sum() / 2
        (gradient,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), gradient.cpu().numpy()

    # The products are torch's: BLAS threads of SciPy's own would only keep its threads from their cores.
    with threadpool_limits(1, user_api="blas"):
        found = minimize(
            loss_and_gradient,
            (weight_SF @ root_FF).flatten().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": tolerance, "ftol": 0, "maxiter": MOST_ITERATIONS, "maxfun": MOST_ITERATIONS},
        )
    # A few samples may be told apart by far: then the loss is so small, beside the scores that it is made of,
    # that the search may find no lower one before the gradient is as small as was asked for.
    lowest = found.message.startswith("ABNORMAL") and np.abs(found.jac).max() <= TOLERANCE_OF_ROUNDING
    if not (found.success or lowest):
        raise RuntimeError(f"logistic regression on {len(x_NF):,} samples did not arrive: {found.message}")
    return weights(torch.tensor(found.x, device=x_NF.device))


def _span(x_ND: Tensor) -> Tensor:
    """Orthonormal directions (D, E) in which all rows, float64, lie."""
    values_N, vectors_NN = torch.linalg.eigh(x_ND @ x_ND.T)
    kept = values_N > values_N[-1] * 1e-7
    basis_DE: Tensor = x_ND.T @ (vectors_NN[:, kept] / values_N[kept].sqrt())
    return basis_DE
