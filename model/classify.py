"""Classifiers on cached features, and how well they do. Nothing here is chosen on the test set.

Axes: N sample, D feature, K class.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model.features import Features

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Score:
    """One row of the result table.

    protocol: "linear", "nearest neighbour", "semi-supervised", "supervised".  features: what was classified.
    labels: how many training labels were used.  top1, top5: share of test samples, 0 to 1; top5 is None for
    the nearest neighbour, which names one class only.  confusion_KK: test samples, true class down.
    """

    protocol: str
    features: str
    labels: int
    top1: float
    top5: float | None
    confusion_KK: NDArray[np.int64]


class LinearClassifier(nn.Module):
    """Multinomial logistic regression on standardised features."""

    mean_D: Tensor
    deviation_D: Tensor

    def __init__(self, train: Features, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", train.x_ND.mean(0))
        self.register_buffer("deviation_D", _deviations(train))
        self.linear = nn.Linear(train.x_ND.shape[1], num_classes, device=train.x_ND.device)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Scores (N, K)."""
        scores_NK: Tensor = self.linear(self.standardise(x_ND))
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


def fit_linear(train: Features, num_classes: int, penalty: float, iterations: int = 200) -> LinearClassifier:
    """Full-batch L-BFGS on cross-entropy plus penalty/2 times the squared weights; no randomness in it."""
    classifier = LinearClassifier(train, num_classes)
    x_ND = classifier.standardise(train.x_ND)
    optimiser = torch.optim.LBFGS(
        classifier.linear.parameters(), max_iter=iterations, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        weight = classifier.linear.weight
        loss = F.cross_entropy(classifier.linear(x_ND), train.labels_N) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return classifier


def choose_penalty(train: Features, num_classes: int, keys: list[str]) -> float:
    """The penalty that does best on a fifth of the training labels fitted on the others; of equals, the
    strongest."""
    held_out = np.zeros(len(keys), bool)
    held_out[balanced_subset(train.labels_N.cpu().numpy(), keys, 0.2)] = True
    if held_out.all():
        return PENALTIES[len(PENALTIES) // 2]  # one label a class: nothing can be held out
    fit_on, check_on = train.take(np.flatnonzero(~held_out)), train.take(np.flatnonzero(held_out))

    def accuracy(penalty: float) -> float:
        return _top_share(fit_linear(fit_on, num_classes, penalty)(check_on.x_ND), check_on.labels_N, 1)

    return max(PENALTIES, key=accuracy)


def linear_evaluation(
    train: Features,
    test: Features,
    num_classes: int,
    keys: list[str],
    features: str,
    protocol: str = "linear",
) -> Score:
    """Fit on all of `train`, score once on `test`. keys: of the training samples."""
    classifier = fit_linear(train, num_classes, choose_penalty(train, num_classes, keys))
    with torch.no_grad():
        scores_NK = classifier(test.x_ND)
    return scored(scores_NK, test.labels_N, protocol, features, len(train.labels_N))


def scored(scores_NK: Tensor, labels_N: Tensor, protocol: str, features: str, labels: int) -> Score:
    """How good the classes' scores of test samples are. labels: how many were trained on."""
    num_classes = scores_NK.shape[1]
    return Score(
        protocol,
        features,
        labels,
        _top_share(scores_NK, labels_N, 1),
        _top_share(scores_NK, labels_N, min(5, num_classes)),
        _confusion(scores_NK.argmax(1), labels_N, num_classes),
    )


@torch.no_grad()
def nearest_neighbour(train: Features, test: Features, num_classes: int, features: str) -> Score:
    """The class of the training sample with the highest cosine similarity (k = 1)."""
    train_ND = F.normalize(train.x_ND, dim=1)
    predicted = [
        train.labels_N[(F.normalize(part, dim=1) @ train_ND.T).argmax(1)]
        for part in torch.split(test.x_ND, 1024)
    ]
    predicted_N = torch.cat(predicted)
    top1 = float((predicted_N == test.labels_N).float().mean())
    confusion_KK = _confusion(predicted_N, test.labels_N, num_classes)
    return Score("nearest neighbour", features, len(train.labels_N), top1, None, confusion_KK)


def balanced_subset(labels_N: NDArray[np.int64], keys: list[str], fraction: float) -> NDArray[np.int64]:
    """Indices of a class-balanced part, sorted: of every class the same share, at least one sample.

    Samples are taken in the order of a hash of their keys, so that the subset is the same everywhere, and a
    smaller fraction's subset lies within a larger one's. Raises ValueError if fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"label fraction is {fraction}; expected above 0, at most 1 (0.1 is ten per cent)")
    place_N = np.array([hashlib.sha256(f"labels {key}".encode()).hexdigest() for key in keys])
    chosen = []
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        count = max(1, round(fraction * len(members)))
        chosen.append(members[np.argsort(place_N[members])][:count])
    return np.sort(np.concatenate(chosen))


def _top_share(scores_NK: Tensor, labels_N: Tensor, k: int) -> float:
    """Share of samples whose class is among the k highest scores."""
    best_Nk = scores_NK.topk(k, dim=1).indices
    return float((best_Nk == labels_N[:, None]).any(1).float().mean())


def _confusion(predicted_N: Tensor, labels_N: Tensor, num_classes: int) -> NDArray[np.int64]:
    pairs = torch.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes).cpu().numpy()
