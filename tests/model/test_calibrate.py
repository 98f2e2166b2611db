"""What is measured of an encoder before it is asked: without labels, without test samples, on copies.

Axes: N sample, D number of h, E number that whitening leaves.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.calibrate import calibrated
from model.checkpoint import new_model
from model.cpstn import CPSTN
from model.features import batch_norms, encoder_extractor, encoder_features, extract_features
from model.finetune import finetune
from model.recipe import FinetuneConfig, load_recipe
from model.supervised import head_scores
from model.whitening import whitening_of
from pipeline.samples import Samples, split_samples
from pipeline.store.shards import Shards

CPU = torch.device("cpu")
SMALL = "model.encoder.widths=[4, 6]", "model.encoder.strides=[1, 2]", "model.decoder.widths=[4, 4, 4, 4, 4]"
KEPT = 300


@pytest.fixture
def train(shards: Shards) -> Samples:
    return split_samples(shards, "xview", "train")


@pytest.fixture
def model(shards: Shards) -> CPSTN:
    return new_model(shards.spec, load_recipe("compact", (*SMALL, f"model.whitened={KEPT}")))


def distances(x_ND: Tensor) -> Tensor:
    return torch.cdist(x_ND.double(), x_ND.double())


def test_h_is_whitened_as_any_features_are(model: CPSTN, train: Samples) -> None:
    """Turned at random and in units of their own, and so as far from each other as they were."""
    plain = copy.deepcopy(model)
    plain.config = replace(model.config, whitened=0)
    plain = calibrated(plain, train, CPU)
    extractor = encoder_extractor(plain)
    features = extract_features(extractor, train, CPU)
    assert features.x_ND.shape[1] == model.representation_size == 240
    expected_NE = whitening_of(extractor, features, train, CPU).apply(features).x_ND
    found_NE = encoder_features(calibrated(model, train, CPU), train, CPU).x_ND
    assert found_NE.shape == (len(train), KEPT)
    torch.testing.assert_close(distances(found_NE), KEPT**0.5 * distances(expected_NE), rtol=1e-3, atol=1e-2)


def test_it_is_learnt_from_training_samples_alone(model: CPSTN, shards: Shards, train: Samples) -> None:
    """And from no label: those of others give the same."""
    test = split_samples(shards, "xview", "test")
    relabelled = replace(train, labels_N=train.labels_N[::-1].copy())
    found, again = (
        encoder_features(calibrated(model, samples, CPU), test, CPU).x_ND for samples in (train, relabelled)
    )
    assert torch.equal(found, again)
    assert not torch.equal(
        found, encoder_features(calibrated(model, train.take(np.arange(40)), CPU), test, CPU).x_ND
    )


def test_measured_again_it_is_measured_anew(model: CPSTN, train: Samples) -> None:
    """Not on top of what was measured before."""
    once = calibrated(model, train, CPU)
    twice = calibrated(once, train, CPU)
    assert model.whitening is None
    found, expected = (encoder_features(one, train, CPU).x_ND for one in (twice, once))
    torch.testing.assert_close(found, expected)


def test_what_was_fitted_before_training_stays(shards: Shards) -> None:
    """All that was learnt behind it was learnt of what it gives: measured on the samples of another protocol
    than the run's own, it would give something else."""
    changes = ("spatial_weight=0", "temporal_weight=0", "model.backbone=statistics")
    graph = ("model.statistics.hidden=8", "model.statistics.graph_streams=['joint']")
    model = new_model(shards.spec, load_recipe("compact", (*SMALL, *changes, *graph))).eval()
    for norm in batch_norms(model):
        norm.get_buffer("running_mean").normal_()
        norm.get_buffer("running_var").uniform_(0.5, 2)
    found = calibrated(model, split_samples(shards, "xsub", "train"), CPU).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(found[name], value)}
    assert "encoder.graph.network.input_norm.running_mean" in found
    assert not {name for name in changed if name.startswith("encoder.graph.")}
    assert "encoder.layers.0.1.running_mean" in changed


def test_fine_tuning_begins_from_h_itself(model: CPSTN, train: Samples) -> None:
    """The map belongs to features that labels have not changed yet."""
    few = train.take(np.arange(12))
    tuned, head = finetune(calibrated(model, train, CPU), few, 10, FinetuneConfig(epochs=1), CPU, seed=0)
    assert tuned.whitening is None
    assert head.in_features == model.representation_size
    assert head_scores(tuned, head, few, CPU).shape == (12, 10)


def test_what_is_alike_cannot_be_whitened(model: CPSTN, train: Samples) -> None:
    with pytest.raises(ValueError, match=r"whitening: .* are all alike"):
        calibrated(model, train.take(np.array([3])), CPU)


@pytest.mark.parametrize(("value", "message"), [("-1", "at least 0"), ("4097", "expected at most 4096")])
def test_how_many_numbers_can_be_kept(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.whitened.*{message}"):
        load_recipe("compact", (f"model.whitened={value}",))
