"""Trained beside untrained, sample by sample."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.scores import Result, Score
from model.versus import Versus, versus_untrained

CONFUSION = np.zeros((2, 2), np.int64)


def score(
    features: str,
    *hits: NDArray[np.bool_],
    labels: int = 8,
    mode: str = "linear",
    k: int | None = None,
) -> Score:
    return Score(mode, features, k, 1.0, labels, tuple(Result(hit_N, None, CONFUSION) for hit_N in hits))


def test_only_samples_on_which_they_disagree_count() -> None:
    ten = np.arange(10)
    trained = score("trained encoder, whitened", ten < 7)
    rows = [
        score("untrained encoder", ten < 0),
        score("untrained encoder, whitened", ten < 0, labels=4),
        score("untrained encoder, whitened", ten < 0, mode="knn"),
        score("untrained encoder, whitened", ten >= 6),
        trained,
    ]
    found = versus_untrained(trained, rows)
    assert found == Versus(won=6, lost=3)
    # Nine fair coins: at least six heads or at least six tails, 2 * (84 + 36 + 9 + 1) / 512.
    assert found.p == pytest.approx(260 / 512)
    fused = score("trained encoders, fused with bone", ten < 7)
    other = score("untrained encoders, fused with bone", ten < 7)
    same = versus_untrained(fused, [fused, other])
    assert same == Versus(0, 0)
    assert same.p == 1


def test_as_many_neighbours_are_asked_of_both() -> None:
    """The gain of one k would be told of another."""
    ten = np.arange(10)
    trained = score("trained encoder", ten < 7, mode="knn", k=5)
    rows = [
        score("untrained encoder", ten < 1, mode="knn", k=1),
        score("untrained encoder", ten < 4, mode="knn", k=5),
        trained,
    ]
    assert versus_untrained(trained, rows) == Versus(won=3, lost=0)


def test_nothing_is_said_without_a_counterpart_or_with_repetitions() -> None:
    ten = np.arange(10)
    trained, untrained = score("trained encoder", ten < 7), score("untrained encoder", ten < 5)
    assert versus_untrained(trained, [trained]) is None
    assert versus_untrained(untrained, [trained, untrained]) is None
    assert versus_untrained(score("input statistics", ten < 9), [trained, untrained]) is None
    assert versus_untrained(score("trained encoder", ten < 7, ten < 8), [untrained]) is None
