"""The protocols on features with a known answer."""

import numpy as np
import pytest
import torch

from model.classify import balanced_subset, choose_penalty, fit_linear, linear_evaluation, nearest_neighbour
from model.features import Features

# N sample, D feature, K class
D, K = 7, 4


def blobs(samples: int, spread: float, seed: int) -> Features:
    """Classes around K fixed places."""
    places_KD = torch.randn(K, D, generator=torch.Generator().manual_seed(11)) * 3
    random = torch.Generator().manual_seed(seed)
    labels_N = torch.arange(samples) % K
    return Features(places_KD[labels_N] + spread * torch.randn(samples, D, generator=random), labels_N)


def keys(samples: int) -> list[str]:
    return [f"sample {n}" for n in range(samples)]


def test_separable_features_are_classified_without_error() -> None:
    train, test = blobs(60, 0.01, 1), blobs(40, 0.01, 2)
    linear = linear_evaluation(train, test, K, keys(60), "blobs")
    nearest = nearest_neighbour(train, test, K, "blobs")
    assert linear.top1 == nearest.top1 == 1.0
    np.testing.assert_array_equal(linear.confusion_KK, np.diag([10] * K))
    assert linear.labels == 60
    assert nearest.top5 is None


def test_random_labels_are_at_chance() -> None:
    random = torch.Generator().manual_seed(3)
    train, test = blobs(80, 1, 1), blobs(800, 1, 2)
    shuffled = Features(train.x_ND, train.labels_N[torch.randperm(80, generator=random)])
    score = linear_evaluation(
        shuffled, Features(torch.randn(800, D, generator=random), test.labels_N), K, keys(80), ""
    )
    assert 0.15 < score.top1 < 0.35
    assert score.top5 == 1.0  # of four classes


def test_confusion_counts_true_classes_down() -> None:
    train = blobs(60, 0.01, 1)
    test = blobs(40, 0.01, 2)
    called_zero = Features(test.x_ND[test.labels_N == 0], torch.full((10,), 3))
    score = linear_evaluation(train, called_zero, K, keys(60), "blobs")
    assert score.confusion_KK[3, 0] == 10
    assert score.top1 == 0


@pytest.mark.parametrize("samples", [60, 5])  # more and fewer than the features
def test_the_fit_minimises_its_objective(samples: int) -> None:
    train = blobs(samples, 2.0, 1)
    classifier = fit_linear(train, K, penalty=0.1)
    x_ND = (train.x_ND - train.x_ND.mean(0)) / train.x_ND.std(0, correction=0)
    weight, bias = classifier.linear.weight, classifier.linear.bias
    loss = (
        torch.nn.functional.cross_entropy(x_ND @ weight.T + bias, train.labels_N)
        + 0.05 * weight.square().sum()
    )
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-3


def test_a_constant_feature_does_no_harm() -> None:
    train, test = blobs(60, 0.01, 1), blobs(40, 0.01, 2)
    widened = [
        Features(torch.cat([part.x_ND, torch.ones(len(part.x_ND), 1)], 1), part.labels_N)
        for part in (train, test)
    ]
    assert linear_evaluation(widened[0], widened[1], K, keys(60), "").top1 == 1.0


def test_penalty_is_chosen_from_the_training_labels_alone() -> None:
    train = blobs(60, 2.0, 1)
    assert choose_penalty(train, K, keys(60)) == choose_penalty(train, K, keys(60))
    one_each = train.take(np.arange(K))
    assert choose_penalty(one_each, K, keys(K)) > 0


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
def test_subsets_are_balanced(fraction: float) -> None:
    labels_N = np.repeat(np.arange(3), [100, 50, 10])
    chosen = balanced_subset(labels_N, keys(160), fraction)
    counts = np.bincount(labels_N[chosen])
    np.testing.assert_array_equal(counts, [max(1, round(fraction * n)) for n in (100, 50, 10)])
    assert len(set(chosen)) == len(chosen)


def test_subsets_are_nested_and_follow_the_keys_alone() -> None:
    labels_N = np.arange(90) % 3
    small, large = (set(balanced_subset(labels_N, keys(90), fraction)) for fraction in (0.1, 0.3))
    assert small < large
    turned = balanced_subset(labels_N[::-1].copy(), keys(90)[::-1], 0.1)
    assert {89 - n for n in turned} == small


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="label fraction is"):
        balanced_subset(np.zeros(3, np.int64), keys(3), fraction)
