"""The fast layout of the graph convolution against the equations written as loops, and the shapes around it.

Axes: P body, C channel (D after a layer), T frame, V joint (W the joint that takes), K partition.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_specs.skeleton import Skeleton
from model.graph import adjacency
from model.graph_convolution import ADAPTIVE, GraphConvolution
from model.stgcn import STGCN, Decoder, DecoderConfig, EncoderConfig, STGCNUnit, _stretch

pytestmark = pytest.mark.usefixtures("_seed")
P, C, T, V = 2, 3, 7, 25
SMALL = EncoderConfig(widths=(8, 10), strides=(2, 1), kernel=3)


@pytest.fixture
def A_KVV(skeleton: Skeleton) -> Tensor:  # noqa: N802
    return torch.from_numpy(adjacency(skeleton))


@pytest.mark.parametrize(("channels_in", "channels_out"), [(3, 5), (9, 11), (12, 4), (6, 6)])
def test_graph_convolution_is_the_papers_sum(A_KVV: Tensor, channels_in: int, channels_out: int) -> None:
    """Eq. 2's inner sum, narrow, wide, widening and narrowing: a slip in a fold would mix up joints."""
    layer = GraphConvolution(A_KVV, channels_in, channels_out)
    x_PCTV = torch.randn(P, channels_in, T, V)
    torch.testing.assert_close(layer(x_PCTV), _convolve_slowly(layer, x_PCTV, A_KVV), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adaptive", ["A+B", "A+C", "A+B+C"])
@pytest.mark.parametrize(("channels_in", "channels_out"), [(3, 8), (9, 12), (12, 4)])
def test_adaptive_terms_are_added_to_the_graph(
    A_KVV: Tensor, adaptive: str, channels_in: int, channels_out: int
) -> None:
    """Eq. 1's B and C: an ablation (Table 5) is worth nothing if its term does not act, or not as written."""
    layer = GraphConvolution(A_KVV, channels_in, channels_out, adaptive)
    x_PCTV = torch.randn(P, channels_in, T, V)
    graph_PKVV = A_KVV.expand(P, -1, -1, -1)
    if layer.B_KVV is not None:
        torch.nn.init.normal_(layer.B_KVV)
        graph_PKVV = graph_PKVV + layer.B_KVV
    if layer.embed is not None:
        graph_PKVV = graph_PKVV + _attend_slowly(layer, layer.embed, x_PCTV)
    assert (layer.B_KVV is not None, layer.embed is not None) == ("B" in adaptive, "C" in adaptive)
    expected = torch.cat([_convolve_slowly(layer, x_PCTV[p : p + 1], graph_PKVV[p]) for p in range(P)])
    torch.testing.assert_close(layer(x_PCTV), expected, rtol=1e-4, atol=1e-5)


def test_the_learnt_graph_starts_at_almost_nothing(A_KVV: Tensor) -> None:
    """B must not disturb the body's own graph before it has learnt anything, and must be learnt."""
    layer = GraphConvolution(A_KVV, 3, 4, "A+B")
    assert layer.B_KVV is not None
    assert 0 < layer.B_KVV.abs().max() < 1e-4
    layer(torch.randn(P, 3, T, V)).square().sum().backward()
    assert layer.B_KVV.grad is not None
    assert layer.B_KVV.grad.abs().sum() > 0


def test_attention_is_each_bodys_own(A_KVV: Tensor) -> None:
    """C is "a unique graph for each sample": a neighbour in the batch must not change it."""
    layer = GraphConvolution(A_KVV, 3, 8, "A+C")
    x_PCTV = torch.randn(P, 3, T, V)
    torch.testing.assert_close(layer(x_PCTV)[1:], layer(x_PCTV[1:]))


def test_attention_of_few_channels_is_a_number() -> None:
    """A quarter of three is none: the scores would be nothing by nothing."""
    layer = GraphConvolution(torch.rand(3, V, V), 3, 3, "A+C")
    assert layer(torch.randn(2, 3, 4, V)).isfinite().all()


@pytest.mark.parametrize(("channels_out", "stride"), [(4, 1), (4, 2), (9, 1)])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("shortcut_frames", ["first", "mean"])
def test_unit_follows_equation_2(
    A_KVV: Tensor, channels_out: int, stride: int, residual: bool, shortcut_frames: str
) -> None:
    """Norms, ReLUs and the shortcut in their places, and frames that stay in line with the strides."""
    options: dict[str, Any] = {"stride": stride, "residual": residual, "shortcut_frames": shortcut_frames}
    unit = STGCNUnit(A_KVV, 4, channels_out, kernel=3, **options).eval()
    _stir_norms(unit)
    x_PCTV = torch.randn(P, 4, T, V)
    spatial = torch.relu(unit.spatial_norm(_convolve_slowly(unit.spatial, x_PCTV, A_KVV)))
    expected = unit.temporal_norm(_convolve_in_time_slowly(unit.temporal.weight, spatial, stride))
    if residual and unit.shortcut is not None:
        parts = x_PCTV.split(stride, dim=2)
        kept = torch.stack(
            [part[:, :, 0] if shortcut_frames == "first" else part.mean(2) for part in parts], dim=2
        )
        expected = expected + unit.shortcut_norm(torch.einsum("dc,pctv->pdtv", unit.shortcut.weight, kept))
    elif residual:
        expected = expected + x_PCTV
    torch.testing.assert_close(unit(x_PCTV), torch.relu(expected), rtol=1e-4, atol=1e-5)


def test_input_norm_knows_each_coordinate_of_each_joint(skeleton: Skeleton) -> None:
    """A hand's height and a foot's height have different means: one norm for both would keep the offset."""
    encoder = STGCN(skeleton, SMALL)
    scale_CV, offset_CV = torch.rand(C, V) + 0.5, torch.randn(C, V) * 5
    x_PCTV = torch.randn(4, C, T, V)
    plain = encoder(x_PCTV)
    moved = encoder(x_PCTV * scale_CV[:, None] + offset_CV[:, None])
    torch.testing.assert_close(moved, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("frames", "left"), [(64, 8), (200, 25), (37, 5), (9, 2), (1, 1)])
def test_encoder_keeps_joints_and_strides_frames(skeleton: Skeleton, frames: int, left: int) -> None:
    """q is (P, C, t, V): pooling joint by joint and the decoders rely on it, for any number of frames."""
    encoder = STGCN(skeleton, EncoderConfig())
    q_PCtV = encoder(torch.randn(3, C, frames, V))
    assert q_PCtV.shape == (3, 128, left, V)
    assert encoder.config.frames_left(frames) == left
    assert encoder.out_channels == 128


@pytest.mark.parametrize("adaptive", ADAPTIVE)
@pytest.mark.parametrize("graph", ["inward_outward", "st_gcn"])
def test_every_parameter_of_the_encoder_learns(skeleton: Skeleton, adaptive: str, graph: str) -> None:
    """A part without a gradient would be trained in name only."""
    encoder = STGCN(skeleton, dataclasses.replace(SMALL, adaptive=adaptive, graph=graph, dropout=0.1))
    encoder(torch.randn(P, C, T, V)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_every_unit_is_as_the_encoders_config_says(skeleton: Skeleton) -> None:
    """A row of Table 5 that was trained on the plain graph would stand there under another's name."""
    config = dataclasses.replace(
        SMALL, adaptive="A+B+C", residual=False, dropout=0.3, shortcut_frames="mean", kernel=5
    )
    encoder = STGCN(skeleton, config)
    for unit, stride in zip(encoder.units, config.strides, strict=True):
        assert isinstance(unit, STGCNUnit)
        assert unit.spatial.B_KVV is not None
        assert unit.spatial.embed is not None
        assert (unit.residual, unit.dropout.p, unit.shortcut_frames) == (False, 0.3, "mean")
        assert (unit.temporal.kernel_size, unit.temporal.stride) == ((5, 1), (stride, 1))


def test_bodies_do_not_see_each_other_in_evaluation(skeleton: Skeleton) -> None:
    """Features of a recording must not depend on what else is in its batch."""
    encoder = STGCN(skeleton, SMALL).eval()
    x_PCTV = torch.randn(5, C, T, V)
    torch.testing.assert_close(encoder(x_PCTV)[2:3], encoder(x_PCTV[2:3]), rtol=1e-4, atol=1e-5)


def test_checkpoints_hold_only_what_is_learnt(skeleton: Skeleton) -> None:
    """The graph comes from the spec; stored in a checkpoint it would silently outvote the recipe's."""
    state = STGCN(skeleton, SMALL).state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    assert not [key for key in state if "A_KVV" in key]


def test_the_seed_decides_the_weights(skeleton: Skeleton) -> None:
    """Two runs of one seed must start alike, and two seeds must not."""

    def weights(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return list(STGCN(skeleton, SMALL).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(1), weights(2), strict=True))


@pytest.mark.parametrize(
    ("frames", "left"), [(64, 8), (200, 25), (37, 5), (7, 1), (7, 7), (63, 21), (64, 1), (1, 1)]
)
def test_decoder_gives_exactly_the_frames_asked_for(skeleton: Skeleton, frames: int, left: int) -> None:
    """One frame too few and the reconstruction cannot be compared with the recording."""
    decoder = Decoder(skeleton, DecoderConfig(widths=(8, 8, 6, 6, 4)), in_channels=5)
    assert decoder(torch.randn(P, 5, left, V), frames).shape == (P, C, frames, V)


@pytest.mark.parametrize(
    ("frames", "left", "expected"),
    [
        (64, 8, [8, 8, 16, 32, 64]),
        (37, 2, [3, 5, 10, 19, 37]),
        (7, 7, [7] * 5),
        (200, 25, [25, 25, 50, 100, 200]),
    ],
)
def test_the_wide_units_of_a_decoder_work_on_few_frames(
    skeleton: Skeleton, frames: int, left: int, expected: list[int]
) -> None:
    """Each on half as many as the next: on all of them, a decoder would cost several encoders."""
    decoder, worked_on = Decoder(skeleton, DecoderConfig(widths=(8, 8, 6, 6, 4)), in_channels=5), list[int]()
    for unit in decoder.units:
        unit.register_forward_hook(lambda *passed: worked_on.append(passed[2].shape[2]))
    decoder(torch.randn(P, 5, left, V), frames)
    assert worked_on == expected


def test_decoder_keeps_frames_in_line_with_the_strides(skeleton: Skeleton) -> None:
    """A burst at encoder frame 3 of 8 must come out around frames 24 to 31 of 64, not somewhere else."""
    decoder = Decoder(skeleton, DecoderConfig(kernel=1), in_channels=4).eval()
    q_PCtV = torch.randn(P, 4, 1, V).repeat(1, 1, 8, 1)
    still = decoder(q_PCtV, 64)
    q_PCtV[:, :, 3] += 10
    changed_T = (decoder(q_PCtV, 64) - still).abs().amax(dim=(0, 1, 3))
    assert (changed_T > 1e-4).nonzero().flatten().tolist() == list(range(24, 32))


def test_linear_upsampling_is_numpys(skeleton: Skeleton) -> None:
    """Between the features of two frames lies their mixture, and no joint's is another's."""
    q_PCtV = torch.randn(2, 3, 5, skeleton.num_joints)
    found = _stretch(q_PCtV, 17, "linear")
    places = np.linspace(0, 4, 17)
    for found_T, q_t in zip(
        found.movedim(2, 3).flatten(0, 2), q_PCtV.movedim(2, 3).flatten(0, 2), strict=True
    ):
        np.testing.assert_allclose(found_T, np.interp(places, np.arange(5), q_t), atol=1e-5)
    config = DecoderConfig(upsampling="linear")
    decoder, usual = (Decoder(skeleton, one, in_channels=3).eval() for one in (config, DecoderConfig()))
    usual.load_state_dict(decoder.state_dict())
    assert not torch.allclose(decoder(q_PCtV, 17), usual(q_PCtV, 17))


def test_decoder_drops_features_only_while_training(skeleton: Skeleton) -> None:
    """Dropout weakens the decoder so that the encoder has to work (4.1.4); evaluation must repeat."""
    decoder = Decoder(skeleton, DecoderConfig(), in_channels=4)
    q_PCtV = torch.randn(P, 4, 2, V)
    assert not torch.equal(decoder(q_PCtV, T), decoder(q_PCtV, T))
    decoder.eval()
    assert torch.equal(decoder(q_PCtV, T), decoder(q_PCtV, T))
    assert [unit.dropout.p for unit in decoder.units if isinstance(unit, STGCNUnit)] == [0.2] * 5


@pytest.mark.parametrize(("first", "expected"), [(0, [5, 5, 5]), (15, [15, 5, 5])])
def test_the_first_unit_may_see_more_frames_than_the_others(
    skeleton: Skeleton, first: int, expected: list[int]
) -> None:
    """It alone works on every frame; of many frames, motion over a few is mostly noise."""
    config = EncoderConfig(widths=(4, 4, 8), strides=(4, 1, 1), kernel=5, first_kernel=first)
    encoder = STGCN(skeleton, config)
    assert [unit.temporal.kernel_size[0] for unit in encoder.units if isinstance(unit, STGCNUnit)] == expected
    assert encoder(torch.randn(P, C, 20, V)).shape == (P, 8, 5, V)


def test_every_parameter_of_the_decoder_learns(skeleton: Skeleton) -> None:
    """A part without a gradient would be trained in name only."""
    decoder = Decoder(skeleton, DecoderConfig(), in_channels=4)
    decoder(torch.randn(P, 4, 2, V), T).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": ()}, r"widths is \[\]"),
        ({"widths": (32, 0), "strides": (1, 1)}, r"widths is \[32, 0\]"),
        ({"strides": (2, 1)}, r"strides is \[2, 1\]; .* 6 widths"),
        ({"strides": (2, 1, 2, 1, 2, 0)}, r"strides"),
        ({"strides": (2**31, 1, 1, 1, 1, 1)}, r"strides: the largest is 2147483648; expected at most 100000"),
        ({"kernel": 4}, r"kernel is 4; expected an odd"),
        ({"kernel": 2**32 - 1}, r"kernel is 4294967295; expected at most 100000"),
        (
            {"first_weights": "kaiming"},
            r"first_weights is 'kaiming'; expected one of random, looks_linear",
        ),
        ({"first_weights": "looks_linear", "widths": (8,) * 5 + (9,)}, r"widths holds 9; expected even"),
        ({"motion_frames": 3}, r"motion_frames is 3; expected 1 to 2, half of kernel = 5"),
        ({"motion_frames": 0}, r"motion_frames is 0; expected 1 to 2"),
        (
            {"first_kernel": 9, "motion_frames": 5},
            r"motion_frames is 5; expected 1 to 4, half of first_kernel = 9",
        ),
        ({"first_kernel": 8}, r"first_kernel is 8; expected an odd"),
        ({"branch_gain": -1}, r"branch_gain is -1; expected a finite number, at least 0"),
        ({"branch_gain": 0, "residual": False}, r"branch_gain: 0 needs shortcuts"),
        ({"graph": "line"}, r"graph is 'line'; expected one of inward_outward"),
        ({"adaptive": "B"}, r"adaptive is 'B'; expected one of A, A\+B"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_a_wrong_encoder_recipe_is_named(wrong: dict[str, object], message: str) -> None:
    """The user learns which key to mend before any hour of training is spent."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EncoderConfig(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": (8, 8)}, r"widths is \[8, 8\]; expected 5 whole numbers above 0"),
        ({"kernel": 0}, r"kernel is 0"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
        ({"output": "feet"}, r"output is 'feet'; expected one of metres, deviations"),
        (
            {"first_weights": "streams"},
            r"first_weights is 'streams'; expected one of random, looks_linear",
        ),
        ({"first_weights": "looks_linear", "widths": (8, 8, 7, 8, 8)}, r"widths holds 7; expected even"),
        ({"upsampling": "cubic"}, r"upsampling is 'cubic'; expected one of nearest, linear"),
    ],
)
def test_a_wrong_decoder_recipe_is_named(wrong: dict[str, object], message: str) -> None:
    """The same for the decoders."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DecoderConfig(), **wrong)  # type: ignore[arg-type]


def _convolve_slowly(layer: GraphConvolution, x_PCTV: Tensor, graph_KVV: Tensor) -> Tensor:
    """sum_k W_k x graph_k, one partition at a time."""
    partitions, channels = len(graph_KVV), x_PCTV.shape[1]
    weight = layer.mix.weight
    if layer.gathers_first:
        W_KDC = weight.view(len(weight), partitions, channels).transpose(0, 1)
    else:
        W_KDC = weight.view(partitions, -1, channels)
    return torch.stack(
        [
            torch.einsum("dc,pctv,vw->pdtw", W_DC, x_PCTV, graph_VV)
            for W_DC, graph_VV in zip(W_KDC, graph_KVV, strict=True)
        ]
    ).sum(dim=0)


def _attend_slowly(layer: GraphConvolution, embed: torch.nn.Linear, x_PCTV: Tensor) -> Tensor:
    """2s-AGCN's C_k: softmax over the giving joints of the product of two embeddings of all frames."""
    size, partitions = layer.embedding_size, len(layer.A_KVV)
    embedded = torch.einsum("ec,pctv->petv", embed.weight, x_PCTV) + embed.bias[:, None, None]
    given, taken = embedded.reshape(P, 2, partitions, size * T, V).unbind(1)
    scores = torch.einsum("pkev,pkew->pkvw", given, taken) / (size * T)
    return scores.exp() / scores.exp().sum(dim=2, keepdim=True)


def _convolve_in_time_slowly(weight: Tensor, x_PCTV: Tensor, stride: int) -> Tensor:
    """A temporal convolution as a sum over its taps; frames outside the recording are zero."""
    kernel, frames = weight.shape[2], x_PCTV.shape[2]
    out = []
    for centre in range(0, frames, stride):
        taps = [(tap, centre + tap - kernel // 2) for tap in range(kernel)]
        seen = [(tap, frame) for tap, frame in taps if 0 <= frame < frames]
        out.append(sum(torch.einsum("dc,pcv->pdv", weight[:, :, i, 0], x_PCTV[:, :, f]) for i, f in seen))
    return torch.stack([frame for frame in out if isinstance(frame, Tensor)], dim=2)


def _stir_norms(unit: STGCNUnit) -> None:
    """Running statistics that differ from 0 and 1, so that a norm in the wrong place is seen."""
    for part in unit.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
