"""The protocols on features with a known answer."""

import numpy as np
import pytest
import torch

from model import classify
from model.classify import (
    PENALTIES,
    balanced_folds,
    choose_penalty,
    fit_chosen,
    fused_evaluation,
    linear_evaluation,
    nearest_neighbours,
)
from model.features import Features, Pair
from model.logistic import fit_linear, fit_path
from tests.model.blobs import D, K, blobs


def keys(samples: int) -> list[str]:
    return [f"sample {n}" for n in range(samples)]


def test_separable_features_are_classified_without_error() -> None:
    train, test = blobs(60, 0.01, 1), blobs(40, 0.01, 2)
    linear = linear_evaluation(train, test, K, keys(60))
    (nearest,) = nearest_neighbours(train, test, K, [1])
    assert linear.top1 == nearest.top1 == 1.0
    assert linear.penalty == choose_penalty(train, K, keys(60))
    np.testing.assert_array_equal(linear.confusion_KK, np.diag([10] * K))
    assert nearest.top5 is None


def test_random_labels_are_at_chance() -> None:
    random = torch.Generator().manual_seed(3)
    train, test = blobs(80, 1, 1), blobs(800, 1, 2)
    shuffled = Features(train.x_ND, train.labels_N[torch.randperm(80, generator=random)])
    score = linear_evaluation(
        shuffled, Features(torch.randn(800, D, generator=random), test.labels_N), K, keys(80)
    )
    assert 0.15 < score.top1 < 0.35
    assert score.top5 is None  # of four classes


def test_confusion_counts_true_classes_down() -> None:
    train = blobs(60, 0.01, 1)
    test = blobs(40, 0.01, 2)
    called_zero = Features(test.x_ND[test.labels_N == 0], torch.full((10,), 3))
    score = linear_evaluation(train, called_zero, K, keys(60))
    assert score.confusion_KK[3, 0] == 10
    assert score.top1 == 0


def test_a_constant_feature_does_no_harm() -> None:
    train, test = blobs(60, 0.01, 1), blobs(40, 0.01, 2)
    widened = [
        Features(torch.cat([part.x_ND, torch.ones(len(part.x_ND), 1)], 1), part.labels_N)
        for part in (train, test)
    ]
    assert linear_evaluation(widened[0], widened[1], K, keys(60)).top1 == 1.0


def test_penalty_is_chosen_from_the_training_labels_alone() -> None:
    train = blobs(60, 2.0, 1)
    assert choose_penalty(train, K, keys(60)) == choose_penalty(train, K, keys(60))
    one_each = train.take(np.arange(K))
    assert choose_penalty(one_each, K, keys(K)) > 0


def test_the_penalty_is_the_best_of_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed again, slowly: every sample is predicted once, by a fit that has not seen it. The smallest loss
    decides, here against the hits."""
    monkeypatch.setattr(classify, "PENALTIES", (1.0, 1e-3))
    train, folds = blobs(60, 3.0, 0), balanced_folds(np.arange(60) % K, keys(60))
    losses, hits = {}, {}
    for penalty in classify.PENALTIES:
        losses[penalty], hits[penalty] = 0.0, 0
        for fold in range(5):
            fitted = fit_linear(train.take(np.flatnonzero(folds != fold)), K, penalty)
            for index in np.flatnonzero(folds == fold):
                score_K = fitted(train.x_ND[[index]])[0].detach()
                losses[penalty] -= float(score_K.log_softmax(0)[train.labels_N[index]])
                hits[penalty] += int(score_K.argmax() == train.labels_N[index])
    best = min(losses, key=lambda penalty: losses[penalty])
    assert choose_penalty(train, K, keys(60)) == best
    assert hits[best] < max(hits.values())


def test_a_class_that_is_held_out_as_a_whole_does_not_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fit knows it, so that the strongest penalty, which knows nothing, would be the best for it."""
    monkeypatch.setattr(classify, "PENALTIES", (1e4, 1e-2))
    many = blobs(60, 0.5, 1)
    lonely = Features(
        torch.cat([many.x_ND, many.x_ND[:1] + 40]), torch.cat([many.labels_N, torch.tensor([K])])
    )
    assert choose_penalty(many, K, keys(60)) == 1e-2
    assert choose_penalty(lonely, K + 1, keys(61)) == 1e-2


def test_folds_hold_every_class_alike() -> None:
    labels_N = np.repeat(np.arange(3), [50, 20, 3])
    folds = balanced_folds(labels_N, keys(73))
    for label, counts in ((0, [10] * 5), (1, [4] * 5), (2, [1, 1, 1, 0, 0])):
        np.testing.assert_array_equal(np.bincount(folds[labels_N == label], minlength=5), counts)


def test_twins_are_in_one_fold() -> None:
    """Two cameras' recordings of one performance: whoever has seen one knows the other."""
    labels_N = np.repeat(np.arange(2), 20)
    shown = [f"performance {n // 2}" for n in range(40)]
    folds = balanced_folds(labels_N, shown)
    assert (folds[0::2] == folds[1::2]).all()
    np.testing.assert_array_equal(np.bincount(folds[labels_N == 0]), [4] * 5)


def test_of_many_labels_a_part_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-validation on a hundred thousand samples would take longer than everything else."""
    monkeypatch.setattr(classify, "MOST_LABELS_TO_CHOOSE_ON", 30)
    seen: list[int] = []

    def counted(train: Features, *others: object) -> object:
        seen.append(len(train.labels_N))
        return fit_path(train, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(classify, "fit_path", counted)
    assert choose_penalty(blobs(120, 2.0, 1), K, keys(120)) in PENALTIES
    assert max(seen) < 30


def test_folds_that_would_say_nothing_new_are_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_on: list[int] = []

    def counted(train: Features, *others: object) -> object:
        fitted_on.append(len(train.labels_N))
        return fit_path(train, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(classify, "fit_path", counted)
    for enough, folds in ((60, 5), (24, 2), (25, 3), (1, 1)):
        monkeypatch.setattr(classify, "ENOUGH_HELD_OUT", enough)
        fitted_on.clear()
        choose_penalty(blobs(60, 2.0, 1), K, keys(60))
        assert fitted_on == [48] * folds


def test_fused_classifiers_vote_by_their_probabilities() -> None:
    """Added up as raw scores, a sure run would outvote the others."""
    train_N, test_N = torch.arange(48) % K, torch.arange(300) % K

    def noisy(numbers: int, strength: float, seed: int) -> Pair:
        """Of the same samples whatever the seed, which decides what the features say of them."""
        random = torch.Generator().manual_seed(seed)
        centre_KD = strength * torch.randn(K, numbers, generator=random)
        train, test = (
            Features(centre_KD[label_N] + torch.randn(len(label_N), numbers, generator=random), label_N)
            for label_N in (train_N, test_N)
        )
        return train, test

    streams = [noisy(3, 0.8, seed=0), noisy(5, 0.5, seed=1), noisy(2, 1.5, seed=2)]
    # Half of them is all one performance, so that the folds are not those of single recordings.
    performances = ["one"] * 24 + [f"other {index}" for index in range(24)]
    votes = [fit_chosen(train, K, performances).scores(test.x_ND) for train, test in streams]
    expected_N = torch.stack([scores_NK.softmax(1) for scores_NK in votes]).sum(0).argmax(1)
    assert (expected_N != torch.stack(votes).sum(0).argmax(1)).any()
    result = fused_evaluation(streams, K, performances)
    np.testing.assert_array_equal(result.hit_N, (expected_N == test_N).numpy())


def test_twenty_neighbours_vote() -> None:
    """The nearest one alone is wrong here; of equally many, the nearer class wins."""
    train = Features(
        torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, 0.25], [1.0, 0.9], [1.0, 1.0]]),
        torch.tensor([0, 1, 1, 2, 2]),
    )
    test = Features(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))
    one, three, twenty = nearest_neighbours(train, test, 3, [1, 3, 20])
    assert one.top1 == 0
    assert three.top1 == 1
    assert twenty.top1 == 1  # two of class 1, two of class 2: nearer
    assert twenty.confusion_KK.sum() == 1


def test_neighbours_of_equal_count_are_told_apart_by_the_smallest_difference() -> None:
    """Two classes with ten neighbours each: that one is nearer by a millionth decides, not its number."""
    angles_N = torch.cat([torch.full((10,), 0.3), torch.full((10,), 0.3 - 3e-6)])
    around = Features(torch.stack([angles_N.cos(), angles_N.sin()], 1), torch.arange(20) // 10)
    asked = Features(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert nearest_neighbours(around, asked, K, [20])[0].top1 == 1
