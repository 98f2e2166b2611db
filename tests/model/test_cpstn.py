"""The parts of CP-STN put together: packed bodies, pooling, the split of the channels.

Axes: N sample, M body place, P present body, C channel, T frame (t after strides), V joint, D representation.
"""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from data_specs.skeleton import Skeleton
from model.cpstn import CPSTN, ModelConfig
from model.graph import STRATEGIES, adjacency
from model.graph_convolution import GraphConvolution
from model.pooling import PoolConfig
from model.stgcn import DecoderConfig, EncoderConfig

pytestmark = pytest.mark.usefixtures("_seed")
N, M, C, T, V = 4, 2, 3, 7, 25
SMALL = ModelConfig(
    encoder=EncoderConfig(widths=(8, 10), strides=(2, 1), kernel=3),
    decoder=DecoderConfig(widths=(8, 8, 6, 6, 4), kernel=3),
    projection=(12, 9),
)
# Which of two places of each of four samples holds a body.
PRESENT_NM = torch.tensor([[True, True], [True, False], [False, True], [True, True]])


@pytest.mark.parametrize("pool", ["joints", "global"])
def test_packed_bodies_equal_the_masked_dense_computation(skeleton: Skeleton, pool: str) -> None:
    """Packing saves work; it must not change a single feature, nor lend one sample's body to another."""
    model = CPSTN(
        skeleton, dataclasses.replace(SMALL, pool=PoolConfig(pool), contrast_pool=PoolConfig(pool))
    ).eval()
    x_NMCTV = torch.randn(N, M, C, T, V)
    sample_P = PRESENT_NM.nonzero()[:, 0]
    packed_ND = model.represent(model.encode(x_NMCTV[PRESENT_NM]), sample_P, N)

    q_NMCtV = model.encode(x_NMCTV.flatten(0, 1)).unflatten(0, (N, M))
    pooled = q_NMCtV.mean(dim=3) if pool == "joints" else q_NMCtV.mean(dim=(3, 4))
    mask = PRESENT_NM[..., None].float()
    dense_ND = (pooled.flatten(2) * mask).sum(dim=1) / mask.sum(dim=1)
    torch.testing.assert_close(packed_ND, dense_ND, rtol=1e-4, atol=1e-6)
    assert packed_ND.shape == (N, model.representation_size)


@pytest.mark.parametrize("graph", STRATEGIES)
def test_encoder_and_decoders_have_one_graph(skeleton: Skeleton, graph: str) -> None:
    """A decoder on the other graph would be one that no recipe names."""
    encoder = dataclasses.replace(SMALL.encoder, graph=graph)
    model = CPSTN(skeleton, dataclasses.replace(SMALL, encoder=encoder))
    expected_KVV = torch.from_numpy(adjacency(skeleton, graph))
    layers = [part for part in model.modules() if isinstance(part, GraphConvolution)]
    assert len(layers) == 2 + 2 * 5
    assert all(torch.equal(layer.A_KVV, expected_KVV) for layer in layers)


def test_the_order_of_the_bodies_does_not_matter(skeleton: Skeleton) -> None:
    """`sample_P` says whose body each is; a loader may pack them as it likes."""
    model = CPSTN(skeleton, SMALL)
    q_PCtV, sample_P = torch.randn(6, 10, 4, V), torch.tensor([0, 0, 1, 2, 3, 3])
    shuffled = torch.tensor([4, 2, 0, 5, 1, 3])
    expected = model.represent(q_PCtV, sample_P, N)
    torch.testing.assert_close(model.represent(q_PCtV[shuffled], sample_P[shuffled], N), expected)


def test_a_sample_without_bodies_gets_zeros(skeleton: Skeleton) -> None:
    """Zero, not NaN: one empty recording must not poison a whole batch's loss."""
    model = CPSTN(skeleton, SMALL)
    h_ND = model.represent(torch.randn(2, 10, 4, V), torch.tensor([0, 2]), 3)
    assert torch.equal(h_ND[1], torch.zeros(model.representation_size))
    assert h_ND[[0, 2]].abs().min(dim=1).values.min() > 0


def test_joints_stay_apart_within_each_channel(skeleton: Skeleton) -> None:
    """The documented order of h, channel by channel, for everyone who reads features joint by joint."""
    model = CPSTN(skeleton, SMALL)
    q_PCtV = torch.randn(1, 10, 4, V)
    h_ND = model.represent(q_PCtV, torch.tensor([0]), 1)
    torch.testing.assert_close(h_ND.view(10, V)[7, 19], q_PCtV[0, 7, :, 19].mean())


@pytest.mark.parametrize(("pool", "size"), [("joints", 10 * V), ("global", 10)])
def test_shapes_from_coordinates_to_projection(skeleton: Skeleton, pool: str, size: int) -> None:
    """The sizes that a linear classifier and a checkpoint are built for."""
    model = CPSTN(skeleton, dataclasses.replace(SMALL, pool=PoolConfig(pool), contrast_pool=PoolConfig(pool)))
    assert model.representation_size == size
    q_PCtV = model.encode(torch.randn(5, C, T, V))
    assert q_PCtV.shape == (5, 10, 4, V)
    h_ND = model.represent(q_PCtV, torch.tensor([0, 0, 1, 2, 3]), N)
    assert model.project(h_ND).shape == (N, 9)
    assert model.reconstruct_spatial(q_PCtV, T).shape == (5, C, T, V)
    assert model.reconstruct_temporal(q_PCtV, T).shape == (5, C, T, V)


@pytest.mark.parametrize(
    ("split", "spatial_sees", "temporal_sees"),
    [(True, range(5), range(5, 10)), (False, range(10), range(10))],
)
def test_each_pretext_sees_its_own_channels(
    skeleton: Skeleton, split: bool, spatial_sees: range, temporal_sees: range
) -> None:
    """Half-C of Table 5: first half for space, second for time; all for both where it is off."""
    model = CPSTN(skeleton, dataclasses.replace(SMALL, split_channels=split)).eval()

    def channels_with_gradient(rebuilt_PCTV: Tensor, q_PCtV: Tensor) -> list[int]:
        (gradient,) = torch.autograd.grad(rebuilt_PCTV.square().sum(), q_PCtV)
        touched: list[int] = gradient.abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist()
        return touched

    q_PCtV = torch.randn(2, 10, 4, V, requires_grad=True)
    assert channels_with_gradient(model.reconstruct_spatial(q_PCtV, T), q_PCtV) == list(spatial_sees)
    assert channels_with_gradient(model.reconstruct_temporal(q_PCtV, T), q_PCtV) == list(temporal_sees)


def test_the_two_pretexts_have_decoders_of_their_own(skeleton: Skeleton) -> None:
    """Shared weights would be another method."""
    model = CPSTN(skeleton, SMALL)
    of_space = {id(parameter) for parameter in model.spatial_decoder.parameters()}
    assert of_space.isdisjoint(id(parameter) for parameter in model.temporal_decoder.parameters())


def test_the_seed_decides_every_weight_and_the_state_is_all_tensors(skeleton: Skeleton) -> None:
    """A run can be repeated, and its checkpoint read without unpickling anything but tensors."""

    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return CPSTN(skeleton, SMALL).state_dict()

    first, again, other = state(3), state(3), state(4)
    assert all(isinstance(value, Tensor) for value in first.values())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])
    assert not [key for key in first if "A_KVV" in key]


def test_untrained_features_neither_die_nor_explode(skeleton: Skeleton) -> None:
    """The untrained encoder is a baseline of every table: its features must be of a sane size."""
    model = CPSTN(skeleton, ModelConfig()).eval()
    q_PCtV = model.encode(torch.randn(3, C, 16, V))
    z_NZ = model.project(model.represent(q_PCtV, torch.tensor([0, 1, 1]), 2))
    rebuilt_PCTV = model.reconstruct_spatial(q_PCtV, 16)
    for tensor in (q_PCtV, z_NZ, rebuilt_PCTV):
        assert 0.01 < tensor.std() < 100


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"projection": (256,)}, r"projection is \[256\]; expected 2 whole numbers above 0"),
        ({"projection": (256, 0)}, r"projection is \[256, 0\]"),
        (
            {"streams": ("joint", "depth")},
            r"streams is \['joint', 'depth'\]; expected some of joint, bone",
        ),
        ({"streams": ()}, r"streams is \[\]"),
        ({"encoder": EncoderConfig(widths=(9,), strides=(1,))}, r"encoder\.widths ends with 9; .*even"),
    ],
)
def test_a_wrong_model_recipe_is_named(wrong: dict[str, object], message: str) -> None:
    """The user learns which key to mend before any hour of training is spent."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_an_odd_width_is_fine_where_nothing_is_split(skeleton: Skeleton) -> None:
    """The check above must not forbid what works."""
    encoder = EncoderConfig(widths=(9,), strides=(1,))
    model = CPSTN(skeleton, dataclasses.replace(SMALL, encoder=encoder, split_channels=False))
    assert model.reconstruct_temporal(model.encode(torch.randn(2, C, T, V)), T).shape == (2, C, T, V)


@pytest.mark.parametrize("input_scale", ["joint", "stream"])
def test_deviations_are_from_where_each_joint_is_in_the_mean(skeleton: Skeleton, input_scale: str) -> None:
    """Of the joints' coordinates, whichever streams are seen beside them, in the units of the input."""
    config = dataclasses.replace(
        SMALL,
        encoder=dataclasses.replace(SMALL.encoder, input_scale=input_scale),
        decoder=DecoderConfig(output="deviations"),
        streams=("motion", "joint", "bone"),
    )
    model = CPSTN(skeleton, config).train()
    x_PCTV = torch.randn(64, C, T, V) * torch.rand(C, 1, V) + torch.randn(C, 1, V)
    for _ in range(200):  # after which the running statistics are those of these bodies
        q_PCtV = model.encode(x_PCTV)
    model.eval()
    for decoder, rebuild in (
        (model.spatial_decoder, model.reconstruct_spatial),
        (model.temporal_decoder, model.reconstruct_temporal),
    ):
        nn.init.zeros_(decoder.to_coordinates.weight)
        torch.testing.assert_close(
            rebuild(q_PCtV, T)[0], x_PCTV.mean((0, 2)).unsqueeze(1).expand(C, T, V), rtol=0, atol=1e-3
        )
        nn.init.ones_(decoder.to_coordinates.bias)
        variance_CV = x_PCTV.transpose(1, 2).flatten(0, 1).var(0)
        if input_scale == "stream":
            variance_CV = variance_CV.mean().expand(C, V)
        expected_CV = x_PCTV.mean((0, 2)) + variance_CV.sqrt()
        torch.testing.assert_close(rebuild(q_PCtV, T)[0, :, 0], expected_CV, rtol=0, atol=1e-3)


def test_deviations_need_the_joints() -> None:
    with pytest.raises(ValueError, match=r"decoder.output is 'deviations'.*'joint'.*\['bone'\]"):
        dataclasses.replace(SMALL, decoder=DecoderConfig(output="deviations"), streams=("bone",))
