"""Classifiers on frozen features. Nothing here is chosen on the test set.

Axes: N sample, T training sample, D feature, k neighbour, K class.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.device import float64
from model.features import Features, Pair
from model.logistic import LinearClassifier, fit_linear, fit_path
from model.scores import Result, result_of_classes, result_of_scores
from model.subset import balanced_subset, hashed_places

# Of the way a linear classifier is fitted: what another version gave is measured again. 2: the penalty is
# chosen by cross-entropy instead of hits. 3: fitted in float64. 4: fitted until it arrives, and only on
# classes that have a label.
LINEAR_VERSION = 4
# Strongest first, half a decade apart.
PENALTIES: tuple[float, ...] = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
FOLDS = 5
# Of more labels than these the penalty is chosen on a balanced part.
MOST_LABELS_TO_CHOOSE_ON = 10_000
# As many tell penalties apart; no further fold is held out.
ENOUGH_HELD_OUT = 2_000
# Fits that are only compared end here: their loss is off by a thousandth, under the weakest penalties by
# hundredths, where the next penalty makes a difference of hundredths.
TOLERANCE_TO_CHOOSE = 1e-4


def choose_penalty(train: Features, num_classes: int, performances: Sequence[str]) -> float:
    """The penalty under which the labels of held-out samples have the smallest cross-entropy, in
    cross-validation on the training labels, on as many of its folds as are needed: the strongest than which
    the next weaker one is no better.

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
    way = [(penalty, TOLERANCE_TO_CHOOSE) for penalty in PENALTIES]
    held: list[Features] = []
    paths = []
    for fold in range(fold_N.max() + 1):
        if sum(len(part.labels_N) for part in held) >= ENOUGH_HELD_OUT:
            break
        known_N = np.isin(labels_N, labels_N[fold_N != fold])
        held.append(train.take(np.flatnonzero((fold_N == fold) & known_N)))
        fit_on = train.take(np.flatnonzero(fold_N != fold))
        paths.append(fit_path(fit_on, num_classes, way))
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


def fused_evaluation(streams: Sequence[Pair], num_classes: int, performances: Sequence[str]) -> Result:
    """Several encoders as one classifier, fused late: each has a linear classifier of its own, and the mean
    of their probabilities decides, as results of several streams (joints, bones and motion) are made.

    streams: what each makes of the same samples in the same order.  performances: see `fit_chosen`.
    """
    log_probabilities = [
        fit_chosen(train, num_classes, performances).scores(test.x_ND).log_softmax(1)
        for train, test in streams
    ]
    _, test = streams[0]
    return result_of_scores(torch.stack(log_probabilities).logsumexp(0), test.labels_N)


@torch.no_grad()
def nearest_neighbours(
    train: Features, test: Features, num_classes: int, numbers: Sequence[int]
) -> list[Result]:
    """For each of these numbers the class of most of so many training samples, those with the highest cosine
    similarity; of classes with equally many, the one whose similarities have the greatest sum.

    Where there are fewer training samples, all vote.
    """
    train_ND = F.normalize(train.x_ND, dim=1)
    predicted: list[list[Tensor]] = [[] for _ in numbers]
    for part_ND in torch.split(test.x_ND, 1024):
        similar_NT = F.normalize(part_ND, dim=1) @ train_ND.T
        similar_Nk, nearest_Nk = similar_NT.topk(min(max(numbers), len(train_ND)), dim=1)
        label_Nk = train.labels_N[nearest_Nk]
        for k, classes in zip(numbers, predicted, strict=True):
            classes.append(_voted(similar_Nk[:, :k], label_Nk[:, :k], num_classes))
    return [
        result_of_classes(torch.cat(classes).to(test.labels_N), test.labels_N, num_classes)
        for classes in predicted
    ]


def _voted(similar_Nk: Tensor, label_Nk: Tensor, num_classes: int) -> Tensor:
    """The class of each row."""
    # Similarities lie within [-1, 1]: the sum of k of them over 4k decides between equal counts only. In
    # float64, or counts would hide differences of the fifth decimal.
    votes_Nk = 1 + float64(similar_Nk) / (4 * similar_Nk.shape[1])
    votes_NK = votes_Nk.new_zeros(len(votes_Nk), num_classes)
    return votes_NK.scatter_add_(1, label_Nk.to(votes_Nk.device), votes_Nk).argmax(1)
