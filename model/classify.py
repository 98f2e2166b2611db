"""Classifiers on frozen features. Nothing here is chosen on the test set.

Axes: N sample, D feature, E dimension of the samples' span, K class, S class that the labels show.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from model.device import float64
from model.features import Features
from model.scores import Result, result_of_classes, result_of_scores
from model.subset import balanced_subset, hashed_places

# Of the way a linear classifier is fitted: what another version gave is measured again. 2: the penalty is
# chosen by cross-entropy instead of hits. 3: fitted in float64. 4: to the minimum indeed, and of the classes
# that the labels show alone.
LINEAR_VERSION = 4
# Strongest first, half a decade apart.
PENALTIES: tuple[float, ...] = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
FOLDS = 5
# Above this many labels the penalty is chosen on a balanced part of them; and when so many samples were held
# out, they have told the penalties apart, and the other folds are not needed.
MOST_LABELS_TO_CHOOSE_ON = 10_000
ENOUGH_HELD_OUT = 2_000
# The largest entry of the gradient at which a fit ends, and one that only has to say which penalty is better;
# by coordinates in which the loss curves by about 1 along each, so that it is how far the minimum is.
TOLERANCE, TOLERANCE_TO_CHOOSE = 1e-7, 1e-4
# The weakest penalty, begun at 0, takes about a thousand.
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
    """The minimum of cross-entropy plus penalty/2 times the squared weights; no randomness in it."""
    return next(fit_path(train, num_classes, (penalty,)))


def fit_path(
    train: Features, num_classes: int, penalties: Sequence[float], tolerance: float = TOLERANCE
) -> Iterator[LinearClassifier]:
    """One classifier for each penalty, when it is asked for; each fit begins where the one before ended.

    Classes without a label take no part, as if there were none: their score is -inf. In float64, on the CPU
    for devices that have none.
    """
    x_ND = float64((train.x_ND - train.x_ND.mean(0)) / _deviations(train))
    # With more features than samples the best weights lie in the samples' span: the same minimum there.
    basis_DE = _span(x_ND) if x_ND.shape[1] > x_ND.shape[0] else None
    x_NE = x_ND if basis_DE is None else x_ND @ basis_DE
    shown_S, labels_N = torch.unique(train.labels_N.to(x_NE.device), return_inverse=True)
    weight_SE, bias_S = x_NE.new_zeros(len(shown_S), x_NE.shape[1]), x_NE.new_zeros(len(shown_S))
    covariance_EE = x_NE.T @ x_NE / len(x_NE)
    for penalty in penalties:
        weight_SE, bias_S = _minimum(x_NE, labels_N, covariance_EE, penalty, weight_SE, bias_S, tolerance)
        fitted = LinearClassifier(train, num_classes, penalty)
        with torch.no_grad():
            shown = shown_S.to(train.labels_N.device)
            weight_SD = weight_SE if basis_DE is None else weight_SE @ basis_DE.T
            fitted.linear.weight[shown] = weight_SD.to(fitted.linear.weight)
            fitted.linear.bias.fill_(-math.inf)[shown] = bias_S.to(fitted.linear.bias)
        yield fitted


def _minimum(
    x_NE: Tensor,
    labels_N: Tensor,
    covariance_EE: Tensor,
    penalty: float,
    weight_SE: Tensor,
    bias_S: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """The best weights and biases, from those given on, by SciPy's L-BFGS. covariance_EE: of the features.

    Features are correlated, and the loss curves a thousand times more along some of their mixtures than along
    others: by the weights themselves L-BFGS does not arrive in hundreds of steps. It sees other coordinates,
    in which the curvature is about the same everywhere: for a given spread of the probabilities it is the
    covariance times that, and the penalty.
    """
    with torch.no_grad():
        probability_NS = (x_NE @ weight_SE.T + bias_S).softmax(1)
        spread = float((probability_NS * (1 - probability_NS)).mean().clamp_min(1e-9))
    root_EE = torch.linalg.cholesky(spread * covariance_EE + penalty * torch.eye(len(covariance_EE)).to(x_NE))

    def unpacked(coordinates: Tensor) -> tuple[Tensor, Tensor]:
        flat_SE, bias_S = coordinates.split([weight_SE.numel(), len(weight_SE)])
        scaled_SE = flat_SE.view_as(weight_SE)
        weights: Tensor = torch.linalg.solve_triangular(root_EE, scaled_SE, upper=False, left=False)
        return weights, bias_S / math.sqrt(spread)

    def loss_and_gradient(coordinates: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.tensor(coordinates, device=x_NE.device, requires_grad=True)
        weight_SE, bias_S = unpacked(at)
        loss = F.cross_entropy(x_NE @ weight_SE.T + bias_S, labels_N)
        loss = loss + penalty / 2 * weight_SE.square().sum()
        (gradient,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), gradient.cpu().numpy()

    begin = torch.cat([(weight_SE @ root_EE).flatten(), bias_S * math.sqrt(spread)])
    found = minimize(
        loss_and_gradient,
        begin.cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": tolerance, "ftol": 0, "maxiter": MOST_ITERATIONS, "maxfun": MOST_ITERATIONS},
    )
    return unpacked(torch.tensor(found.x, device=x_NE.device))


def _span(x_ND: Tensor) -> Tensor:
    """Orthonormal directions (D, E) in which all rows, float64, lie."""
    values_N, vectors_NN = torch.linalg.eigh(x_ND @ x_ND.T)
    kept = values_N > values_N[-1] * 1e-7
    basis_DE: Tensor = x_ND.T @ (vectors_NN[:, kept] / values_N[kept].sqrt())
    return basis_DE


def choose_penalty(train: Features, num_classes: int, performances: Sequence[str]) -> float:
    """The penalty under which the labels of held-out samples have the smallest cross-entropy, in
    cross-validation on the training labels, on as many of its folds as are needed; of equals, the strongest.

    Hits would be what is reported, but of a thousand samples their number is the same within its error from
    0.1 down, so that other folds choose another penalty, whose accuracy on new views is up to three points
    off (docs/experiments.md, "How the penalty is chosen"). A sample whose class was held out with it says
    nothing. performances: whose recording each sample is; see `balanced_folds`.
    """
    if len(PENALTIES) == 1:
        return PENALTIES[0]
    labels_N = train.labels_N.cpu().numpy()
    if len(labels_N) > MOST_LABELS_TO_CHOOSE_ON:
        part = balanced_subset(labels_N, performances, MOST_LABELS_TO_CHOOSE_ON / len(labels_N))
        train, labels_N = train.take(part), labels_N[part]
        performances = [performances[index] for index in part]
    fold_N = balanced_folds(labels_N, performances)
    if fold_N.max() == 0:
        return PENALTIES[len(PENALTIES) // 2]  # one label a class: nothing can be held out
    held: list[Features] = []
    paths = []
    for fold in range(fold_N.max() + 1):
        if sum(len(part.labels_N) for part in held) >= ENOUGH_HELD_OUT:
            break
        known_N = np.isin(labels_N, labels_N[fold_N != fold])
        held.append(train.take(np.flatnonzero((fold_N == fold) & known_N)))
        fit_on = train.take(np.flatnonzero(fold_N != fold))
        paths.append(fit_path(fit_on, num_classes, PENALTIES, TOLERANCE_TO_CHOOSE))
    best, least = PENALTIES[0], math.inf
    for penalty, *classifiers in zip(PENALTIES, *paths, strict=True):
        loss = sum(_cross_entropy(*pair) for pair in zip(classifiers, held, strict=True))
        if loss >= least:
            break  # weaker ones, which take the longest to fit, are worse still
        best, least = penalty, loss
    return best


def _cross_entropy(classifier: LinearClassifier, held: Features) -> float:
    """Summed over the samples."""
    return float(F.cross_entropy(classifier.scores(held.x_ND), held.labels_N, reduction="sum"))


def balanced_folds(labels_N: NDArray[np.int64], performances: Sequence[str]) -> NDArray[np.int64]:
    """The fold of every sample, 0 to FOLDS - 1, every class spread over all of them.

    performances: what differs by the camera alone has one name, and is in one fold: twins on both sides, or
    copies, would make too weak a penalty look good. A hash of it decides.
    """
    place_N, fold_N = hashed_places(performances, seed=0), np.zeros(len(performances), np.int64)
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        _, rank = np.unique(place_N[members], return_inverse=True)
        fold_N[members] = rank % FOLDS
    return fold_N


def fit_chosen(train: Features, num_classes: int, performances: Sequence[str]) -> LinearClassifier:
    """Fitted on all of `train`, with the penalty that these labels choose.

    performances: of the training samples, a name each; see `balanced_folds`.
    """
    return fit_linear(train, num_classes, choose_penalty(train, num_classes, performances))


def linear_evaluation(
    train: Features, test: Features, num_classes: int, performances: Sequence[str]
) -> Result:
    """Fit on all of `train`, score once on `test`. performances: see `fit_chosen`."""
    classifier = fit_chosen(train, num_classes, performances)
    return result_of_scores(classifier.scores(test.x_ND), test.labels_N, classifier.penalty)


@torch.no_grad()
def nearest_neighbours(train: Features, test: Features, num_classes: int, k: int) -> Result:
    """The class of most of the k training samples with the highest cosine similarity.

    Of classes with equally many, the one whose similarities have the greatest sum. k is at most the number of
    training samples.
    """
    train_ND, predicted = F.normalize(train.x_ND, dim=1), []
    for part_ND in torch.split(test.x_ND, 1024):
        similar_Nk, nearest_Nk = (F.normalize(part_ND, dim=1) @ train_ND.T).topk(min(k, len(train_ND)), dim=1)
        # Similarities lie within [-1, 1]: the sum of k of them over 4k decides between equal counts only. In
        # float64, or counts would hide differences of the fifth decimal.
        votes_Nk = 1 + float64(similar_Nk) / (4 * k)
        votes_NK = votes_Nk.new_zeros(len(part_ND), num_classes)
        voted_Nk = train.labels_N[nearest_Nk].to(votes_Nk.device)
        predicted.append(votes_NK.scatter_add_(1, voted_Nk, votes_Nk).argmax(1))
    return result_of_classes(torch.cat(predicted).to(test.labels_N), test.labels_N, num_classes)
