"""Several runs as one classifier, against the mean of their probabilities one run after the other.

Axes: N sample, D feature, K class.
"""

import numpy as np
import torch
from numpy.testing import assert_array_equal

from model.classify import fit_chosen
from model.features import Features, Pair
from model.fusion import fused_scores
from model.subset import Labelled, all_labels

TRAIN, TEST, K = 48, 300, 4


def noisy_features(numbers: int, strength: float, seed: int) -> Pair:
    """Of the same samples whatever the seed, which decides what the features say of them."""
    generator = torch.Generator().manual_seed(seed)
    centre_KD = strength * torch.randn(K, numbers, generator=generator)
    train, test = (
        Features(centre_KD[label_N] + torch.randn(len(label_N), numbers, generator=generator), label_N)
        for label_N in (torch.arange(TRAIN) % K, torch.arange(TEST) % K)
    )
    return train, test


def test_fused_classifiers_are_fitted_on_the_row_s_own_labels_and_vote_by_their_probabilities() -> None:
    """Fitted on more labels than the row says, chosen on other folds, or added up as raw scores, in which a
    sure run outvotes the others, a fused row would stand beside rows of another method."""
    features = [
        noisy_features(3, 0.8, seed=0),
        noisy_features(5, 0.5, seed=1),
        noisy_features(2, 1.5, seed=2),
    ]
    # The first half is all one performance, whose labels leave no fold to choose a penalty on.
    performances = ["one"] * (TRAIN // 2) + [f"other {index}" for index in range(TRAIN // 2)]
    halves = np.arange(TRAIN // 2, TRAIN), np.arange(0, TRAIN, 2)
    labelled = [all_labels(TRAIN), Labelled(0.5, halves, ("late.txt", "even.txt"))]
    found = fused_scores("trained encoder", features, ("bones", "motion"), labelled, performances, K)
    assert [(row.label_fraction, row.labels, row.subset, row.fused) for row in found] == [
        (1, TRAIN, None, ("bones", "motion")),
        (0.5, TRAIN // 2, "late.txt, even.txt", ("bones", "motion")),
    ]
    for row, labels in zip(found, labelled, strict=True):
        assert len(row.results) == len(labels.sets)
        for result, chosen in zip(row.results, labels.sets, strict=True):
            total_NK = torch.zeros(TEST, K)
            for train, test in features:
                fitted = fit_chosen(train.take(chosen), K, [performances[index] for index in chosen])
                total_NK += fitted.scores(test.x_ND).softmax(1)
            assert_array_equal(result.hit_N, (total_NK.argmax(1) == torch.arange(TEST) % K).numpy())
