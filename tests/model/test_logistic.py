"""Logistic regression beside scikit-learn's, and where it is hard to arrive."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeResult, minimize
from sklearn.linear_model import LogisticRegression

from model import logistic
from model.features import Features
from model.logistic import fit_linear
from tests.model.blobs import K, blobs


@pytest.mark.parametrize("penalty", [0.1, 1e-3])
@pytest.mark.parametrize("samples", [60, 5])  # more and fewer than the features
def test_the_fit_is_scikit_learns(samples: int, penalty: float) -> None:
    """In float32 it would end where the loss no longer changes: with few labels, other samples are hit."""
    train, test = blobs(samples, 2.0, 1), blobs(400, 2.0, 2)
    deviation_D = train.x_ND.std(0, correction=0)
    standardised = ((train.x_ND - train.x_ND.mean(0)) / deviation_D).double()
    theirs = LogisticRegression(C=1 / (penalty * samples), tol=1e-8, max_iter=10_000)
    theirs.fit(standardised, train.labels_N)
    expected_NK = theirs.decision_function((test.x_ND - train.x_ND.mean(0)) / deviation_D)
    scores_NK = fit_linear(train, K, penalty).scores(test.x_ND).numpy()
    found, expected = (each - each.mean(1, keepdims=True) for each in (scores_NK, expected_NK))
    np.testing.assert_allclose(found, expected, atol=0.002)


@pytest.mark.parametrize("samples", [400, 150])  # more and fewer than the features
def test_the_fit_arrives_where_features_are_correlated(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As real ones are: most of what they say is one and the same. By the weights themselves L-BFGS takes 400
    evaluations here."""
    found: list[OptimizeResult] = []

    def noted(*arguments: Any, **options: Any) -> OptimizeResult:
        found.append(minimize(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(logistic, "minimize", noted)
    random = torch.Generator().manual_seed(5)
    own_NE, common_N1 = (torch.randn(samples, size, generator=random) for size in (200, 1))
    labels_N = (own_NE @ torch.randn(200, K, generator=random)).argmax(1)
    fit_linear(Features(own_NE + 3 * common_N1, labels_N), K, 1e-3)
    assert np.abs(found[-1].jac).max() <= logistic.TOLERANCE
    assert sum(fit.nfev for fit in found) < 100


def test_classes_without_a_label_take_no_part() -> None:
    """An unpenalised bias would fall for ever, and the fit not end."""
    train, test = blobs(60, 2.0, 1), blobs(40, 2.0, 2)
    alone = fit_linear(train, K, 0.1).scores(test.x_ND)
    spread = fit_linear(Features(train.x_ND, 2 * train.labels_N), 2 * K, 0.1).scores(test.x_ND)
    np.testing.assert_array_equal(spread[:, 0::2], alone)
    assert (spread[:, 1::2] == -torch.inf).all()
    of_one_class = fit_linear(Features(train.x_ND, torch.full((60,), 2)), K, 0.1).scores(test.x_ND)
    assert (of_one_class.argmax(1) == 2).all()


@pytest.mark.parametrize("seed", [5, 11])
def test_a_fit_arrives_where_rounding_hides_what_is_left(seed: int) -> None:
    """34 labels and 1,024 numbers: an evaluation ended in an error, as the loss could not be seen to fall."""
    random = torch.Generator().manual_seed(seed)
    labels_N = torch.arange(34) % 13
    own_ND, class_KD = (torch.randn(size, 1024, generator=random) for size in (34, 13))
    train = Features(own_ND + 0.3 * class_KD[labels_N], labels_N)
    fitted, nearly = (fit_linear(train, 13, penalty) for penalty in (1e-4, 1.1e-4))
    found_N13, near_N13 = (one.scores(train.x_ND).softmax(1) for one in (fitted, nearly))
    assert (found_N13.argmax(1) == labels_N).all()
    assert (found_N13 - near_N13).abs().max() < 1e-3


def test_a_fit_that_does_not_arrive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MOST_ITERATIONS", 2)
    with pytest.raises(RuntimeError, match="logistic regression on 60 samples did not arrive"):
        fit_linear(blobs(60, 2.0, 1), K, 1e-3)
