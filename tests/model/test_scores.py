"""Accuracies from a confusion matrix that was counted by hand."""

from operator import itemgetter

import numpy as np
import pytest
import torch

from model.scores import Result, Score, headlines_of, result_of_classes, result_of_scores

# Four classes; class 2 is never tested, class 3 neither tested nor named.
TRUE = torch.tensor([0, 0, 0, 0, 1, 1])
NAMED = torch.tensor([0, 0, 1, 2, 1, 0])
CONFUSION = np.array([[2, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_counts_and_shares() -> None:
    result = result_of_classes(NAMED, TRUE, 4)
    np.testing.assert_array_equal(result.confusion_KK, CONFUSION)
    np.testing.assert_array_equal(result.hit_N, (NAMED == TRUE).numpy())
    assert result.top1 == pytest.approx(3 / 6)
    assert result.top5 is None
    np.testing.assert_allclose(result.per_class, [0.5, 0.5, np.nan, np.nan])
    # F1 of 0: 4 / (3 + 4); of 1: 2 / (2 + 2); of 2, which was named wrongly: 0. Class 3 does not occur.
    assert result.macro_f1 == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)


def test_the_five_best_are_looked_at() -> None:
    scores_NK = torch.tensor([[0.0, 9, 8, 7, 6, 5, 4], [0.0, 9, 8, 7, 6, 5, 4], [9.0, 0, 0, 0, 0, 0, 0]])
    result = result_of_scores(scores_NK, torch.tensor([5, 6, 0]))
    assert result.top1 == pytest.approx(1 / 3)
    assert result.top5 == pytest.approx(2 / 3)


def test_a_class_that_the_classifier_does_not_know_is_none_of_the_five_best() -> None:
    unknown = -torch.inf
    scores_NK = torch.tensor([[3.0, 2, unknown, unknown, unknown, unknown]]).expand(6, 6)
    assert result_of_scores(scores_NK, torch.arange(6)).top5 == pytest.approx(2 / 6)


def test_repetitions_are_summed_up() -> None:
    ten = np.arange(10)
    results = (Result(ten < 5, 0.8, CONFUSION), Result(ten < 7, 0.9, 2 * CONFUSION))
    row = Score("linear", "some", None, 0.1, 12, results).to_table(ten < 0)
    assert row["top1"]["mean"] == pytest.approx(0.6)
    assert row["top1"]["deviation"] == pytest.approx(np.sqrt(2 * 0.1**2))
    assert row["top1"]["by_seed"] == [0.5, 0.7]
    assert row["top5"]["mean"] == pytest.approx(0.85)
    assert row["seeds"] == 2
    np.testing.assert_array_equal(row["confusion"], 3 * CONFUSION)
    assert row["per_class"] == [0.5, 0.5, None, None]
    assert row["top1_without_copies"] is None
    alone = Score("knn", "some", 1, 1.0, 12, (Result(ten < 5, None, CONFUSION),)).to_table(ten < 0)
    assert alone["top1"]["deviation"] is None
    assert alone["top5"] is None


def test_the_penalties_of_linear_classifiers_are_written_down() -> None:
    scores_NK = torch.eye(6)[NAMED]
    results = tuple(result_of_scores(scores_NK, TRUE, penalty) for penalty in (0.3, 0.1))
    row = Score("linear", "some", None, 1.0, 12, results)
    assert row.to_table(np.zeros(6, bool))["penalties"] == [0.3, 0.1]
    neighbours = Score("knn", "some", 1, 1.0, 12, (result_of_classes(NAMED, TRUE, 6),))
    assert neighbours.to_table(np.zeros(6, bool))["penalties"] is None


def test_headlines_are_of_what_was_trained_the_most_labels_first() -> None:
    rows = [
        {"mode": mode, "features": features, "labels": labels}
        for mode, features, labels in (
            ("linear", "input statistics", 4),
            ("linear", "trained encoder", 2),
            ("linear", "trained encoder", 4),
            ("semi", "trained encoder", 3),
            ("semi", "trained encoder", 2),
            ("supervised", "encoder and linear layer", 2),
        )
    ]
    facts = itemgetter("mode", "features", "labels")
    assert headlines_of(rows, facts) == [rows[place] for place in (5, 2, 1, 3, 4)]
    assert headlines_of(rows[:1], facts) == []


def test_copies_of_training_samples_can_be_left_out() -> None:
    ten = np.arange(10)
    results = (Result(ten < 5, None, CONFUSION), Result(ten < 7, None, CONFUSION))
    row = Score("knn", "some", 1, 1.0, 12, results)
    spread = row.to_table(ten < 4)["top1_without_copies"]
    assert spread["by_seed"] == pytest.approx([1 / 6, 3 / 6])
    assert spread["mean"] == pytest.approx(2 / 6)
    assert row.to_table(ten < 10)["top1_without_copies"] is None  # nothing is left
