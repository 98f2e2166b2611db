"""Whitening makes small what views change, learns it without labels, and is a plain linear map.

Axes: K copy, N sample, P packed present body, C coordinate, T frame, V joint, D feature, E number that an
encoder sees.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import model.whitening as whitening
from model.calibrate import calibrated
from model.checkpoint import load_checkpoint, new_model
from model.cpstn import CPSTN
from model.features import (
    Features,
    encoder_extractor,
    extract_features,
    statistics_extractor,
)
from model.logistic import LinearClassifier, fit_linear
from model.recipe import Recipe, load_recipe
from model.run import Run
from model.statistics import StatisticsEncoder, input_statistics
from model.train import train
from model.whitening import COPIES, fit_encoder, fit_whitening, join, view_scatter, whitening_of
from pipeline.loader import changed_copy, sequential_batches
from pipeline.samples import split_samples
from pipeline.store.shards import Shards
from pipeline.store.tar_shard import TarShards

CPU = torch.device("cpu")
SAME_GRAPH = "model.encoder.widths=[4, 6]", "model.encoder.strides=[1, 2]"


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


def test_scatter_counts_by_the_features_own_deviation() -> None:
    """Else what is measured in larger units would seem to scatter more."""
    features = some_features()
    of_variance_D = torch.tensor([0, 4.0, 0, 0, 0, 9.0])
    scatter_DD = torch.diag(features.x_ND.var(0, correction=0).double() * of_variance_D)
    after_D = fit_whitening(features, scatter_DD).apply(features).x_ND.std(0, correction=0)
    expected_D = (of_variance_D / of_variance_D.mean() + 1) ** -0.5
    torch.testing.assert_close(after_D / after_D[0], expected_D, rtol=1e-3, atol=0.0)


def test_what_is_scaled_keeps_its_scales() -> None:
    features = Features(some_features().x_ND, some_features().labels_N, scaled=True)
    after_ND = fit_whitening(features, 3 * torch.eye(6, dtype=torch.float64)).apply(features).x_ND
    before_D, after_D = features.x_ND.std(0, correction=0), after_ND.std(0, correction=0)
    torch.testing.assert_close(after_D / after_D[0], before_D / before_D[0], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("most", [6, 4])
def test_a_feature_that_only_copies_vary_in_is_left_out(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of flat poses the depth is nothing until they are turned. Over its own deviation, about 0, its scatter
    would be all there is, and nothing else would be whitened."""
    monkeypatch.setattr(whitening, "MOST_WHITENED", most)
    features = some_features()
    silent_ND = features.x_ND.clone()
    silent_ND[:, 2] = 0.7
    scatter_DD = torch.diag(features.x_ND.var(0, correction=0).double() * torch.tensor([1, 2.0, 3, 4, 5, 9]))
    silent = Features(silent_ND, features.labels_N)
    found = fit_whitening(silent, scatter_DD)
    assert not found.map_DE[2].any()
    # The mean over all six is (1 + 2 + 4 + 5 + 9) / 6.
    expected_D = (torch.tensor([1, 2.0, torch.inf, 4, 5, 9]) / 3.5 + 1) ** -0.5
    after_D = found.apply(silent).x_ND.std(0, correction=0)
    torch.testing.assert_close(after_D / after_D[0], expected_D / expected_D[0], rtol=1e-3, atol=0.0)
    projected = whitening._projection(silent)
    assert projected.map_DE.shape == (6, min(most, 5))
    assert not projected.map_DE[2].any()


def test_equal_scatter_leaves_standardised_features_of_mean_length_one() -> None:
    """Blocks of features can be joined by weight only if each is as long as the other."""
    features = some_features()
    scatter_DD = torch.diag(features.x_ND.var(0, correction=0).double())
    whitened = fit_whitening(features, scatter_DD).apply(features)
    torch.testing.assert_close(whitened.x_ND.square().sum(1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(
        whitened.x_ND.std(0, correction=0), torch.full((6,), 6**-0.5), rtol=1e-4, atol=0.0
    )
    torch.testing.assert_close(whitened.x_ND.mean(0), torch.zeros(6), atol=1e-5, rtol=0.0)
    joined = join(whitened, whitened)
    assert joined.x_ND.shape == (200, 12)
    assert joined.take(np.array([5])).scaled


def test_what_does_not_vary_cannot_be_whitened() -> None:
    """A failed decomposition of a matrix says nothing about views that change nothing, or a single sample."""
    features = some_features()
    with pytest.raises(ValueError, match=r"whitening: .* are all alike; expected at least two samples"):
        fit_whitening(features, torch.zeros(6, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"whitening: .* are all alike"):
        fit_whitening(features.take(np.array([3])), torch.eye(6, dtype=torch.float64))


def test_no_device_is_asked_for_float64_that_may_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """MPS, which a Mac takes by default, answers with a TypeError; only `model.device.float64` knows."""

    def refuse(_: Tensor) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(Tensor, "double", refuse)
    features = some_features()
    fit_whitening(features, torch.eye(6, dtype=torch.float64))
    few = features.take(np.arange(4))
    fit_linear(few, 4, 0.1)


def test_many_dimensions_are_projected_first(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty thousand features would need hours and more memory than there is."""
    train = split_samples(shards, "xview", "train")
    extractor = statistics_extractor(train.skeleton)
    features = extract_features(extractor, train, CPU)
    whole = whitening_of(extractor, features, train, CPU)
    assert torch.equal(whole.map_DE, fit_whitening(features, view_scatter(extractor, train, CPU)).map_DE)
    monkeypatch.setattr(whitening, "MOST_WHITENED", 30)
    mean_D, deviation_D = features.x_ND.mean(0), features.x_ND.std(0, correction=0)
    deviation_D[deviation_D <= 1e-4] = torch.inf
    z_ND = ((features.x_ND - mean_D) / deviation_D).double()
    components_DE = torch.linalg.svd(z_ND, full_matrices=False).Vh[:30].T
    projected_ND = (z_ND @ components_DE).float()
    scatter_DD = view_scatter(extractor, train, CPU) / torch.outer(deviation_D, deviation_D).double()
    expected = fit_whitening(
        Features(projected_ND, features.labels_N, scaled=True), components_DE.T @ scatter_DD @ components_DE
    )
    found_NE = whitening_of(extractor, features, train, CPU)(features.x_ND)
    assert found_NE.shape == (len(train), 30)
    expected_NE = expected(projected_ND)
    torch.testing.assert_close(found_NE @ found_NE.T, expected_NE @ expected_NE.T, rtol=1e-2, atol=1e-3)


def test_a_classifier_keeps_the_scales_of_whitened_features() -> None:
    """Standardising them again would undo the whitening in silence."""
    x_ND = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2, 3, 4])

    def standardised(scaled: bool) -> Tensor:
        return LinearClassifier(Features(x_ND, torch.zeros(50).long(), scaled), 2, penalty=0.1).standardise(
            x_ND
        )

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


def best(*changes: str) -> Recipe:
    """Of statistics alone, but for what is changed."""
    alone = "model.streams=['joint']", "model.statistics.hidden=8", "model.statistics.graph_streams=[]"
    return load_recipe("best", (*alone, *changes))


def best_with_graph(*changes: str) -> Recipe:
    return best(
        *SAME_GRAPH, "model.statistics.graph_streams=['joint']", "model.statistics.whitened=12", *changes
    )


def fitted(shards: Shards, recipe: Recipe) -> CPSTN:
    model = new_model(shards.spec, recipe)
    fit_encoder(model, split_samples(shards, "xview", "train"), recipe)
    return model.eval()


def seen_by(model: CPSTN, shards: Shards) -> Tensor:
    """What the first layer sees of each training sample, as `skip` hands it on."""
    features = extract_features(encoder_extractor(model), split_samples(shards, "xview", "train"), CPU)
    return features.x_ND[:, 8:].double()


def test_an_encoder_sees_whitened_statistics(shards: Shards) -> None:
    """As many numbers as there are statistics, or more, only turn them: all distances stay."""
    recipe = best("model.statistics.whitened=800", "view.rotation=0.1", "seed=3")
    train = split_samples(shards, "xview", "train")
    extractor = statistics_extractor(train.skeleton, ("joint",))
    statistics = extract_features(extractor, train, CPU)
    assert statistics.x_ND.shape[1] == 720
    scatter_DD = view_scatter(extractor, train, CPU, changes=recipe.view, seed=recipe.seed)
    expected_ND = fit_whitening(statistics, scatter_DD).apply(statistics).x_ND.double() * 800**0.5
    found_NE = seen_by(fitted(shards, recipe), shards)
    assert found_NE.shape == (len(train), 800)
    torch.testing.assert_close(found_NE @ found_NE.T, expected_ND @ expected_ND.T, rtol=1e-3, atol=0.1)


def test_fewer_numbers_are_the_principal_ones_and_share_alike(shards: Shards) -> None:
    """A classifier standardises what it is given: directions of their own size would lose it there."""
    all_ND = seen_by(fitted(shards, best("model.statistics.whitened=720")), shards)
    found_NE = seen_by(fitted(shards, best("model.statistics.whitened=12")), shards)
    kept = found_NE.square().sum() / 12 / (all_ND.square().sum() / 720)
    variance_D = torch.linalg.svdvals(all_ND).square()
    torch.testing.assert_close(kept, variance_D[:12].sum() / variance_D.sum(), rtol=1e-3, atol=0.0)
    deviation_E = found_NE.std(0)
    assert deviation_E.max() < 3 * deviation_E.min()
    assert torch.linalg.svdvals(found_NE)[0] > 3 * torch.linalg.svdvals(found_NE)[-1]


def test_a_trained_and_an_untrained_encoder_see_alike(shards: Shards, tmp_path: Path) -> None:
    """The untrained one stands for all that was there before the contrast: whitening was."""
    recipe, new = best("model.statistics.whitened=12", "epochs=1", "batch_size=16"), Run(tmp_path / "run")
    new.create(recipe, shards.location, shards.manifest.digest)
    told: list[str] = []
    train(shards, recipe, new, device=CPU, on_note=told.append)
    assert told == [
        f"whitening the statistics of {len(shards.split('xview', 'train'))} samples before the first step"
    ]
    checkpoint = load_checkpoint(new)
    trained, untrained = checkpoint.build_model().eval(), checkpoint.build_model(trained=False).eval()
    torch.testing.assert_close(seen_by(trained, shards), seen_by(untrained, shards), rtol=0.0, atol=0.0)
    torch.testing.assert_close(seen_by(trained, shards), seen_by(fitted(shards, recipe), shards))
    weights = [dict(model.named_parameters())["encoder.layers.0.0.weight"] for model in (trained, untrained)]
    assert not torch.equal(*weights)


def test_tars_are_fitted_to_as_arrays_are(shards: Shards, both_shards: Shards) -> None:
    tars = replace(both_shards, manifest=replace(both_shards.manifest, format="webdataset"))
    recipe = best("model.statistics.whitened=12")
    expected, found = (fitted(these, recipe).fitted["input_norm"] for these in (shards, tars))
    assert isinstance(split_samples(tars, "xview", "train").source, TarShards)
    torch.testing.assert_close(found.mean_D, expected.mean_D)


def test_of_many_samples_some_are_enough(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of NTU-120's hundred thousand each would be changed and encoded four times before the first step."""
    recipe, train = best("model.statistics.whitened=12"), split_samples(shards, "xview", "train")
    monkeypatch.setattr("model.features.MOST_FITTED", 30)
    some = fitted(shards, recipe)
    alone = new_model(shards.spec, recipe)
    fit_encoder(alone, train.take(np.arange(30)), recipe)
    maps = [model.fitted.state_dict()["input_norm.map_DE"] for model in (some, alone)]
    assert torch.equal(*maps)


def test_what_a_graph_with_first_weights_makes_is_whitened_with_the_statistics(shards: Shards) -> None:
    """The statistics of its features, behind those of the input, as an encoder of that graph would give them
    whose batch normalisation was measured on the same samples."""
    recipe, train = best_with_graph(), split_samples(shards, "xview", "train")
    model = fitted(shards, recipe)
    assert isinstance(model.encoder, StatisticsEncoder)
    assert model.encoder.graph is not None
    pools = "model.pool.statistics=['mean', 'deviation', 'covariance']"
    alone = load_recipe("best", (*SAME_GRAPH, "model.backbone='st_gcn'", "model.streams=['joint']", pools))
    encoder = new_model(shards.spec, alone)
    encoder.encoder.load_state_dict(model.encoder.graph.network.state_dict())
    encoder = calibrated(encoder, train, CPU)
    (batch,) = sequential_batches(train.take(np.arange(9)), 9)
    found_PD = model.encoder.measure(batch.original_PCTV)
    expected_PD = encoder.represent(
        encoder.encode(batch.original_PCTV), torch.arange(len(found_PD)), len(found_PD)
    )
    assert found_PD.shape[1] == 720 + 2 * 6 * 20 + 21
    torch.testing.assert_close(found_PD[:, 720:], expected_PD)
    torch.testing.assert_close(found_PD[:, :720], input_statistics(batch.original_PCTV))
    assert seen_by(model, shards).isfinite().all()


def test_training_leaves_that_graph_as_it_was_fitted(shards: Shards, tmp_path: Path) -> None:
    """Its features are whitened by a map that was fitted to them, and would not be if they moved."""
    recipe, new = best_with_graph("epochs=2", "batch_size=16"), Run(tmp_path / "run")
    new.create(recipe, shards.location, shards.manifest.digest)
    train(shards, recipe, new, device=CPU)
    checkpoint, expected = load_checkpoint(new), fitted(shards, recipe)
    samples = split_samples(shards, "xview", "train")
    for model in (checkpoint.build_model(), checkpoint.build_model(trained=False)):
        for name, tensor in calibrated(model, samples, CPU).fitted.state_dict().items():
            torch.testing.assert_close(tensor, expected.fitted.state_dict()[name], rtol=0.0, atol=0.0)
    assert not expected.fitted["graph"].train().training


def test_few_samples_span_few_directions() -> None:
    """Where features are more than samples, directions that no sample has are left out."""
    z_ND = torch.randn(9, 30, dtype=torch.float64)
    z_ND -= z_ND.mean(0)
    for found_DE in (whitening._principal_directions(z_ND, 30), whitening._principal_directions(z_ND.T, 5)):
        size = found_DE.shape[1]
        torch.testing.assert_close(found_DE.T @ found_DE, torch.eye(size, dtype=torch.float64))
    directions_DE = whitening._principal_directions(z_ND, 30)
    assert directions_DE.shape == (30, 8)
    torch.testing.assert_close((z_ND @ directions_DE).norm(dim=0), torch.linalg.svdvals(z_ND)[:8])
    torch.testing.assert_close(whitening._principal_directions(z_ND, 3), directions_DE[:, :3])


def test_a_graph_is_measured_where_nothing_is_whitened(shards: Shards) -> None:
    """Without statistics of its own its batch normalisation would normalise by nothing."""
    recipe, told = best_with_graph("model.statistics.whitened=0"), list[str]()
    model, samples = new_model(shards.spec, recipe), split_samples(shards, "xview", "train")
    fit_encoder(model, samples, recipe, on_note=told.append)
    assert told == [f"measuring the statistics of {len(samples)} samples before the first step"]
    assert list(model.fitted) == ["graph"]
    whitened = fitted(shards, best_with_graph())
    for name, tensor in model.fitted.state_dict().items():
        assert torch.equal(tensor, whitened.fitted.state_dict()[name])
