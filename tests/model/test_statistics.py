"""The encoder of plain statistics, against loops, and what the rest of the model needs of it.

Axes: P body, C channel, T frame, V joint.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data_specs.read import load_spec
from data_specs.skeleton import Skeleton
from model.cpstn import CPSTN, ModelConfig
from model.pooling import LEAST_VARIANCE, PoolConfig, pool
from model.recipe import load_recipe
from model.statistics import BodyNorm, StatisticsConfig, StatisticsEncoder, input_statistics
from model.stgcn import EncoderConfig

pytestmark = pytest.mark.usefixtures("_seed")
P, C, T, V = 5, 3, 8, 20
SMALL = StatisticsConfig(hidden=6)
# Views that change nothing.
STILL = (
    "view.rotation=0",
    "view.shear=0",
    "view.jitter_std=0",
    "view.bones=0",
    "view.mirror=0",
    "view.crop=0",
)


@pytest.fixture
def skeleton() -> Skeleton:
    return load_spec("ucla").skeleton


def test_statistics_span_by_span() -> None:
    x_PCTV = torch.randn(P, C, T, V)
    spans = [range(T), range(3), range(3, 6), range(6, 8)]  # eight frames: thirds of three, three and two
    for body in range(P):
        expected = []
        for frames in spans:
            x_CFV = x_PCTV[body, :, list(frames)].numpy().astype(np.float64)
            for statistic in (np.mean, np.std, lambda x, axis: np.abs(x).mean(axis)):
                expected += [statistic(x_CFV[c, :, v], 0) for c in range(C) for v in range(V)]
        np.testing.assert_allclose(input_statistics(x_PCTV)[body].numpy(), expected, atol=1e-6)


def test_every_parameter_learns_and_bodies_stay_apart(skeleton: Skeleton) -> None:
    encoder = StatisticsEncoder(skeleton, SMALL)
    x_PCTV = torch.randn(P, C, T, V)
    q_PCtV = encoder(x_PCTV)
    assert q_PCtV.shape == (P, 6, 1, 1)
    (q_PCtV * torch.randn_like(q_PCtV)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        if "norm" not in name:
            assert parameter.grad.abs().sum() > 0, name
    encoder.eval()
    torch.testing.assert_close(encoder(x_PCTV)[1:], encoder(x_PCTV[1:]))


def test_it_sees_the_spans_that_it_is_asked_for(skeleton: Skeleton) -> None:
    """Through layers that begin for a ReLU, without a bias."""
    encoder = StatisticsEncoder(skeleton, replace(SMALL, spans=(2,))).eval()
    x_PCTV = torch.randn(P, C, T, V)
    expected_PD = encoder.layers(encoder.input_norm(input_statistics(x_PCTV, (2,))))
    assert torch.equal(encoder(x_PCTV)[:, :, 0, 0], expected_PD)
    assert not any(layer.bias.any() for layer in encoder.layers.modules() if isinstance(layer, nn.Linear))


def test_a_single_body_can_be_trained_on(skeleton: Skeleton) -> None:
    """The last batch of an epoch of fine-tuning may hold one sample; its spread would be 0."""
    encoder = StatisticsEncoder(skeleton, SMALL)
    encoder(torch.randn(P, C, T, V))
    assert isinstance(encoder.input_norm, BodyNorm)
    before = encoder.input_norm.running_mean
    assert before is not None
    before = before.clone()
    alone_PCTV = torch.randn(1, C, T, V)
    trained = encoder(alone_PCTV)
    torch.testing.assert_close(trained, encoder.eval()(alone_PCTV))
    torch.testing.assert_close(encoder.input_norm.running_mean, before)


def test_the_model_pools_and_projects_statistics(skeleton: Skeleton) -> None:
    config = ModelConfig(backbone="statistics", statistics=SMALL, streams=("joint", "motion"))
    model = CPSTN(skeleton, config, spatial_pretext=False, temporal_pretext=False)
    q_PCtV = model.encode(torch.randn(3, C, T, V))
    h_ND = model.represent(q_PCtV, torch.tensor([0, 1, 1]), 2)
    assert h_ND.shape == (2, 6)
    torch.testing.assert_close(h_ND[1], q_PCtV[1:, :, 0, 0].mean(0))
    assert model.project(h_ND).shape == (2, 128)


def test_what_a_layer_sees_is_handed_on_but_not_contrasted(skeleton: Skeleton) -> None:
    """The contrast would be solved by what was there before it."""
    config = replace(SMALL, skip=True)
    model = CPSTN(
        skeleton,
        ModelConfig(backbone="statistics", statistics=config),
        spatial_pretext=False,
        temporal_pretext=False,
    ).eval()
    x_PCTV, sample_P = torch.randn(3, C, T, V), torch.arange(3)
    q_PCtV = model.encode(x_PCTV)
    seen_PD = model.encoder.input_norm(input_statistics(x_PCTV))
    assert model.representation_size == q_PCtV.shape[1] == 6 + seen_PD.shape[1]
    torch.testing.assert_close(q_PCtV[:, 6:, 0, 0], seen_PD)
    torch.testing.assert_close(model.to_contrast(q_PCtV, sample_P, 3), q_PCtV[:, :6, 0, 0])
    assert model.project(q_PCtV[:, :6, 0, 0]).shape == (3, 128)


def test_a_graph_sees_its_own_streams(skeleton: Skeleton) -> None:
    """Whatever lies before and between them."""
    config = replace(SMALL, graph_streams=("motion", "joint"))
    encoder = StatisticsEncoder(skeleton, config, ("joint", "bone", "motion"), EncoderConfig((4,), (1,)))
    assert encoder.graph is not None
    x_PCTV = torch.randn(P, 9, T, V)
    network = encoder.graph.network
    seen_PCTV = torch.cat([x_PCTV[:, 6:], x_PCTV[:, :3]], dim=1)
    features_PCTV = network(seen_PCTV)
    deviation_PCV = (features_PCTV.var(2, correction=0) + LEAST_VARIANCE).sqrt()
    expected_PD = torch.cat([features_PCTV.mean(2).flatten(1), deviation_PCV.flatten(1)], dim=1)
    torch.testing.assert_close(encoder.graph(x_PCTV), expected_PD)
    assert encoder.train().layers.training
    assert not any(part.training for part in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())


def test_a_graph_gives_the_statistics_that_are_asked_for(skeleton: Skeleton) -> None:
    """As a pool makes them, and as many as the encoder has room for."""
    names = ("mean", "covariance")
    config = replace(SMALL, graph_streams=("joint",), graph_statistics=names)
    encoder = StatisticsEncoder(skeleton, config, ("joint",), EncoderConfig((4,), (1,)))
    assert encoder.graph is not None
    x_PCTV = torch.randn(P, C, T, V)
    expected_PD = pool(encoder.graph.network(x_PCTV), PoolConfig(statistics=names))
    torch.testing.assert_close(encoder.graph(x_PCTV), expected_PD)
    assert encoder.graph.numbers == expected_PD.shape[1] == 4 * V + 10
    assert encoder(x_PCTV).shape == (P, 6, 1, 1)


def test_an_encoder_that_was_not_fitted_gives_no_numbers(skeleton: Skeleton) -> None:
    """Zeros would go unnoticed; training stops where a loss is no number."""
    encoder = StatisticsEncoder(skeleton, replace(SMALL, whitened=4))
    assert encoder(torch.randn(P, C, T, V)).isnan().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["spatial_weight=1"], r"spatial_weight is 1\.0; expected 0 with model\.backbone = 'statistics'"),
        (["model.statistics.hidden=0"], r"model\.statistics\.hidden is 0"),
        (["model.statistics.layers=0"], r"model\.statistics\.layers is 0"),
        (["model.statistics.spans=[]"], r"model\.statistics\.spans is \[\]"),
        (
            ["model.statistics.graph_streams=['hands']"],
            r"model\.statistics\.graph_streams is \['hands'\]; expected some of joint, bone",
        ),
        (
            ["model.statistics.graph_statistics=['median']"],
            r"model\.statistics\.graph_statistics is \['median'\]; expected some of mean, deviation",
        ),
        (
            ["model.streams=['joint']"],
            r"model\.statistics\.graph_streams holds 'distance'; expected some of the streams \['joint'\]",
        ),
        (["model.statistics.whitened=-1"], r"model\.statistics\.whitened is -1"),
        (
            [*STILL],
            r"statistics\.whitened is 1024, but the views change nothing",
        ),
    ],
)
def test_what_makes_no_sense_is_named(changes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("best", tuple(changes))


@pytest.mark.parametrize(
    "change",
    ["rotation=0.1", "shear=0.1", "jitter_std=0.01", "bones=0.1", "mirror=0.5", "crop=0.1"],
)
def test_whitening_learns_from_any_change_of_the_views(change: str) -> None:
    """A recipe with one of them alone would be refused, though it can be trained."""
    assert load_recipe("best", (*STILL, f"view.{change}")).model.statistics.whitened


@pytest.mark.parametrize("change", [("mirror=1",), ("jitter_std=0.05", "jitter_probability=0")])
def test_views_that_are_all_changed_alike_teach_whitening_nothing(change: tuple[str, ...]) -> None:
    """A scatter of nothing would be inverted: the features would be noise, and no loss would say so."""
    changes = (*STILL, *(f"view.{key}" for key in change))
    with pytest.raises(ValueError, match="the views change nothing"):
        load_recipe("best", changes)
    # Where nothing is whitened, nothing has to change.
    load_recipe("best", (*changes, "model.statistics.whitened=0"))
    load_recipe("best", (*changes, "model.backbone=gru"))


def test_recordings_need_a_frame_for_every_span() -> None:
    config = load_recipe("best").model
    config.check_frames(3)
    with pytest.raises(ValueError, match=r"statistics\.spans holds 3; expected at most the 2 frames"):
        config.check_frames(2)
    with pytest.raises(ValueError, match=r"model\.pool\.spans holds 3; expected \[1\], as statistics"):
        load_recipe("best", ("model.pool.spans=[1, 3]",)).model.check_frames(32)
