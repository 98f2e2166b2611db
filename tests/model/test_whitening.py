"""Whitening makes small what views change, learns it without labels, and is a plain linear map.

Axes: K copy, N sample, P packed present body, C coordinate, T frame, V joint, D feature.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

import model.whitening as whitening
from model.classify import LinearClassifier
from model.features import Features, extract_features, statistics_extractor
from model.whitening import COPIES, fit_whitening, join, view_scatter
from pipeline.loader import changed_copy, sequential_batches
from pipeline.samples import split_samples
from pipeline.store.shards import Shards

CPU = torch.device("cpu")


def some_features(size: int = 6, count: int = 200) -> Features:
    x_ND = torch.randn(count, size, generator=torch.Generator().manual_seed(0))
    return Features(x_ND * torch.arange(1, size + 1), torch.arange(count) % 3)


def test_the_scatter_is_that_of_the_copies(shards: Shards) -> None:
    """Batch by batch it must add up to what a loop over all samples and copies finds."""
    samples = split_samples(shards, "xview", "train").take(np.arange(11))
    extractor = statistics_extractor(samples.skeleton)
    found_DD = view_scatter(extractor, samples, CPU, seed=3, batch_size=4)
    (batch,) = sequential_batches(samples, 11)
    copies = []
    for copy in range(COPIES):
        x_PCTV = changed_copy(batch, samples.skeleton, whitening.CHANGES, seed=3, copy=copy)
        assert not torch.equal(x_PCTV, batch.original_PCTV)
        copies.append(extractor(x_PCTV, batch.sample_P, 11).double().numpy())
    expected_DD = np.zeros(found_DD.shape)
    for n in range(11):
        mean_D = sum(features_ND[n] for features_ND in copies) / COPIES
        for features_ND in copies:
            expected_DD += np.outer(features_ND[n] - mean_D, features_ND[n] - mean_D)
    np.testing.assert_allclose(found_DD.numpy(), expected_DD / (11 * COPIES), rtol=1e-4, atol=1e-9)


def test_what_views_change_counts_less_and_the_rest_alike() -> None:
    """A feature that turns with the viewpoint would decide about recordings from another side."""
    features = some_features()
    scatter_DD = torch.diag(features.x_ND.var(0, correction=0).double() * torch.tensor([0, 0, 0, 0, 0, 9.0]))
    after_D = fit_whitening(features, scatter_DD).apply(features).x_ND.std(0, correction=0)
    torch.testing.assert_close(after_D[:5], after_D[:1].expand(5), rtol=1e-3, atol=0.0)
    # The scatter's mean is 9 / 6, so the last direction is divided by the root of 1 + 6 and the others by 1.
    torch.testing.assert_close(after_D[5], after_D[0] / 7**0.5, rtol=1e-3, atol=0.0)


def test_no_scatter_leaves_standardised_features_of_mean_length_one() -> None:
    """Blocks of features can be joined by weight only if each is as long as the other."""
    features = some_features()
    whitened = fit_whitening(features, torch.eye(6, dtype=torch.float64), strength=1e-9).apply(features)
    torch.testing.assert_close(whitened.x_ND.square().sum(1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(whitened.x_ND.mean(0), torch.zeros(6), atol=1e-5, rtol=0.0)
    joined = join(whitened, whitened)
    assert joined.x_ND.shape == (200, 12)
    assert joined.take(np.array([5])).scaled


def test_many_dimensions_are_projected_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty thousand features would need hours and more memory than there is."""
    features = some_features(size=8)
    mixed = Features(features.x_ND @ torch.randn(8, 8), features.labels_N)
    whole = fit_whitening(mixed, torch.eye(8, dtype=torch.float64)).apply(mixed)
    monkeypatch.setattr(whitening, "MOST_DIMENSIONS", 3)
    few = fit_whitening(mixed, torch.eye(8, dtype=torch.float64)).apply(mixed)
    assert whole.x_ND.shape == (200, 8)
    assert few.x_ND.shape == (200, 3)


def test_a_classifier_keeps_the_scales_of_whitened_features() -> None:
    """Standardising them again would undo the whitening in silence."""
    x_ND = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2, 3, 4])

    def standardised(scaled: bool) -> Tensor:
        return LinearClassifier(Features(x_ND, torch.zeros(50).long(), scaled), 2).standardise(x_ND)

    torch.testing.assert_close(standardised(False).std(0, correction=0), torch.ones(4))
    kept_D = standardised(True).std(0, correction=0)
    torch.testing.assert_close(kept_D / kept_D[0], x_ND.std(0, correction=0) / x_ND[:, 0].std(correction=0))
    torch.testing.assert_close(kept_D.square().mean(), torch.tensor(1.0))


def test_test_samples_and_labels_have_no_part_in_it(shards: Shards) -> None:
    """The floor that it raises would be raised by what it is measured on."""
    train, test = (split_samples(shards, "xview", part) for part in ("train", "test"))
    extractor = statistics_extractor(train.skeleton)
    features = extract_features(extractor, train, CPU)
    fitted = fit_whitening(features, view_scatter(extractor, train, CPU))
    relabelled = Features(features.x_ND, features.labels_N.flip(0))
    again = fit_whitening(relabelled, view_scatter(extractor, train, CPU))
    assert torch.equal(fitted.map_DE, again.map_DE)
    assert fitted.apply(extract_features(extractor, test, CPU)).x_ND.isfinite().all()
