"""Weights to begin with: filters that look linear must be, and those that begin as streams see these.

Axes: P body, C channel, T frame (t after strides), V joint, K partition.
"""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from data_specs.skeleton import Skeleton
from model.first_weights import begin_handing_on, begin_linear, initialise
from model.graph import adjacency
from model.stgcn import STGCN, Decoder, DecoderConfig, EncoderConfig

pytestmark = pytest.mark.usefixtures("_seed")
P, C, T, V = 2, 3, 7, 25
SMALL = EncoderConfig(widths=(8, 10), strides=(2, 1), kernel=3)


def test_layers_begin_as_wide_as_a_relu_needs() -> None:
    """Half of what comes in is cut off: with torch's own smaller weights every layer would pass on less, and
    with a bias what no body showed."""
    layers = nn.ModuleList([nn.Linear(200, 300), nn.Conv2d(20, 300, (9, 1)), nn.Linear(200, 300, bias=False)])
    initialise(layers)
    for layer in layers:
        weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)
        assert bias is None or not bias.any()


@pytest.mark.parametrize("residual", [True, False])
def test_an_encoder_that_looks_linear_is(skeleton: Skeleton, residual: bool) -> None:
    """However deep: what a pair of features differs by adds up as its inputs do. Both orders of gathering and
    mixing are there, and every shortcut has a layer in it."""
    config = EncoderConfig(
        widths=(8, 16, 16, 6), strides=(2, 1, 2, 1), residual=residual, first_weights="looks_linear"
    )
    encoder = STGCN(skeleton, config).double().eval()
    one, other = torch.randn(2, P, C, T, V, dtype=torch.float64)
    seen = [_differences(encoder(x_PCTV)) for x_PCTV in (one, other, 2 * one - 3 * other)]
    assert seen[0].abs().mean() > 0.01
    torch.testing.assert_close(seen[2], 2 * seen[0] - 3 * seen[1])
    encoder = STGCN(skeleton, dataclasses.replace(config, first_weights="random")).double().eval()
    seen = [_differences(encoder(x_PCTV)) for x_PCTV in (one, other, 2 * one - 3 * other)]
    assert not torch.allclose(seen[2], 2 * seen[0] - 3 * seen[1], atol=0.01)


def test_of_a_pair_one_feature_is_always_zero(skeleton: Skeleton) -> None:
    """So that nothing is lost by a ReLU: what one filter of a pair does not let through, the other does."""
    encoder = STGCN(skeleton, EncoderConfig(residual=False, first_weights="looks_linear")).eval()
    q_PCtV = encoder(torch.randn(P, C, T, V))
    smaller, larger = torch.stack((q_PCtV[:, ::2], q_PCtV[:, 1::2])).sort(dim=0).values
    assert smaller.max() == 0
    assert (larger > 0).float().mean() > 0.99


@pytest.mark.parametrize("channels_in", [4, 5])
def test_a_decoder_that_looks_linear_is(skeleton: Skeleton, channels_in: int) -> None:
    """From the differences of the encoder's pairs to coordinates. An odd number of channels has no pairs; its
    first layer takes them as they are."""
    config = DecoderConfig(widths=(8, 6, 6, 4, 4), dropout=0.0, first_weights="looks_linear")
    decoder = Decoder(skeleton, config, in_channels=channels_in).double().eval()
    # Without what an identity shortcut adds; see `begin_linear`.
    for unit in decoder.units:
        unit.residual = False  # type: ignore[assignment]
    pairs = 1 if channels_in % 2 else 2
    one, other = torch.randn(2, P, channels_in // pairs, 2, V, dtype=torch.float64)

    def rebuilt(signed: Tensor) -> Tensor:
        both = torch.stack((signed, -signed), dim=2).relu().flatten(1, 2) if pairs == 2 else signed
        coordinates: Tensor = decoder(both, T)
        return coordinates

    torch.testing.assert_close(rebuilt(2 * one - 3 * other), 2 * rebuilt(one) - 3 * rebuilt(other))
    assert rebuilt(one).abs().mean() > 0.01


@pytest.mark.parametrize(("output", "share"), [("metres", 1.0), ("deviations", 0.1)])
def test_coordinates_begin_as_large_as_the_features_they_come_from(
    skeleton: Skeleton, output: str, share: float
) -> None:
    """No ReLU follows that would halve them: with weights for one, every body would begin too large."""
    config = DecoderConfig(widths=(4, 4, 4, 4, 600), kernel=1, output=output)
    weight_CD = Decoder(skeleton, config, in_channels=4).to_coordinates.weight
    assert weight_CD.shape == (C, 600)
    assert weight_CD.std().item() == pytest.approx(share * 600**-0.5, rel=0.06)


@pytest.mark.parametrize(("shape", "channels"), [((8, 3, 6), 2), ((12, 10, 5, 1), 1), ((16, 8), 1)])
def test_pairs_are_orthogonal(shape: tuple[int, ...], channels: int) -> None:
    """No two begin by seeing the same; where there are more than numbers, no two numbers are seen alike. Side
    by side lie those of opposite sign."""
    filters = torch.empty(shape)
    begin_linear(filters, channels, pairs_in=True)
    torch.testing.assert_close(filters[::2], -filters[1::2])
    among = filters.movedim(channels, -1)[::2, ..., ::2].flatten(1)
    products = among @ among.T if len(among) <= among.shape[1] else among.T @ among
    torch.testing.assert_close(products, products.diagonal().diag(), atol=1e-5, rtol=0)
    assert products.diagonal().min() > 0.1


def test_what_looks_linear_learns(skeleton: Skeleton) -> None:
    """Pairs must be able to part: both get a gradient, and not the same."""
    encoder = STGCN(skeleton, dataclasses.replace(SMALL, first_weights="looks_linear"))
    encoder(torch.randn(P, C, T, V)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    temporal = encoder.units[0].get_parameter("temporal.weight").grad
    assert temporal is not None
    assert (temporal[::2] + temporal[1::2]).abs().max() > 1e-4


@pytest.mark.parametrize("graph", ["inward_outward", "st_gcn"])
@pytest.mark.parametrize(("num_streams", "kernel"), [(1, 9), (2, 9), (1, 3)])
def test_the_first_unit_begins_with_joints_bones_and_motion(
    skeleton: Skeleton, graph: str, num_streams: int, kernel: int
) -> None:
    """In pairs of opposite sign; a shortcut that added coordinates would have motion filters see places."""
    channels = 3 * num_streams
    config = EncoderConfig(widths=(48,), strides=(1,), kernel=kernel, graph=graph, first_weights="streams")
    encoder = STGCN(skeleton, config, channels).eval()
    x_PCTV = torch.randn(P, channels, T, V)
    A_KVV = torch.from_numpy(adjacency(skeleton, graph))
    own_PCTV, *neighbours = (x_PCTV @ A_VV for A_VV in A_KVV)
    still = torch.cat([own_PCTV, *(own_PCTV - near_PCTV for near_PCTV in neighbours)], dim=1)
    moving = still - torch.cat([torch.zeros_like(still[:, :, :1]), still[:, :, :-1]], dim=2)
    expected = torch.cat([still, moving], dim=1)[:, :24]
    found = _differences(encoder(x_PCTV))[:, : expected.shape[1]]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert encoder(x_PCTV).min() == 0


def test_motion_can_be_seen_over_more_frames(skeleton: Skeleton) -> None:
    """The mean of three frames less the mean of the three before; beyond the recording all is 0."""
    config = EncoderConfig(widths=(48,), strides=(1,), kernel=7, first_weights="streams", motion_frames=3)
    x_PCTV = torch.randn(P, C, T, V)
    padded = torch.cat([torch.zeros(P, C, 3, V), x_PCTV, torch.zeros(P, C, 2, V)], dim=2)
    expected = [padded[:, :, t + 3 : t + 6].mean(2) - padded[:, :, t : t + 3].mean(2) for t in range(T)]
    found = _differences(STGCN(skeleton, config).eval()(x_PCTV))[:, 9 : 9 + C]
    torch.testing.assert_close(found, torch.stack(expected, 2), rtol=1e-3, atol=1e-4)


def test_motion_needs_two_frames(skeleton: Skeleton) -> None:
    """A kernel of one frame sees what is, and no more."""
    config = EncoderConfig(widths=(48,), strides=(1,), kernel=1, first_weights="streams")
    x_PCTV = torch.randn(P, C, T, V)
    seen = _differences(STGCN(skeleton, config).eval()(x_PCTV))
    torch.testing.assert_close(seen[:, :3], x_PCTV, rtol=1e-3, atol=1e-4)
    assert seen[:, 9:].abs().mean() > 0.01


def test_a_shortcut_hands_on_what_was_normally_distributed() -> None:
    """Behind its normalisation and the next ReLU all is in proportion as before them, and nothing cut off."""
    weight, norm = torch.randn(6, 4), torch.nn.BatchNorm1d(6)
    others = weight[4:].clone()
    begin_handing_on(weight, norm.bias)
    x = torch.randn(200_000, 4).relu()
    handed = norm(x @ weight.T).relu()[:, :4]
    torch.testing.assert_close(handed * x.std(0), x, rtol=0, atol=0.01)
    torch.testing.assert_close(weight[4:], others)
    assert norm.bias[4:].tolist() == [0, 0]


@pytest.mark.parametrize(("frames", "least"), [("mean", 0.95), ("first", 0.4)])
def test_what_the_first_unit_sees_comes_out_at_the_end(skeleton: Skeleton, frames: str, least: float) -> None:
    """Where units begin as their shortcuts, and these take means, the time average of what the first one sees
    is there behind the last one. Of every fourth frame alone, which is what strides leave, it is not."""
    config = EncoderConfig(
        widths=(32, 32, 64), strides=(1, 2, 2), first_weights="streams", shortcut_frames=frames, branch_gain=0
    )
    encoder = STGCN(skeleton, config)
    x_PCTV = torch.randn(256, C, 8, V)
    flat = encoder.input_norm(x_PCTV.transpose(1, 2).reshape(-1, C * V))
    before = encoder.units[0](flat.view(256, 8, C, V).transpose(1, 2)).mean(2)
    behind = encoder(x_PCTV).mean(2)
    both = torch.stack([features[:, :9].transpose(0, 1).flatten(1) for features in (before, behind)])
    found = [torch.corrcoef(of_channel)[0, 1] for of_channel in both.unbind(1)]
    assert least < min(found) < least + 0.2


def test_without_gain_the_encoder_begins_as_its_first_unit(skeleton: Skeleton) -> None:
    """Units that keep the shape hand on what comes in, and still learn."""
    config = EncoderConfig(widths=(8, 8, 8), strides=(2, 1, 1), branch_gain=0.0)
    encoder = STGCN(skeleton, config).eval()
    first_unit = STGCN(skeleton, EncoderConfig(widths=(8,), strides=(2,))).eval()
    first_unit.load_state_dict(encoder.state_dict(), strict=False)
    x_PCTV = torch.randn(P, C, T, V)
    torch.testing.assert_close(encoder(x_PCTV), first_unit(x_PCTV))
    encoder(x_PCTV).square().sum().backward()
    gains = [unit.get_parameter("temporal_norm.weight") for unit in encoder.units]
    assert all(gain.grad is not None and gain.grad.abs().sum() > 0 for gain in gains)


def _differences(q_PCtV: Tensor) -> Tensor:
    """Of the features of each pair."""
    return q_PCtV[:, ::2] - q_PCtV[:, 1::2]
