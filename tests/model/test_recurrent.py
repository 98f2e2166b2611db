"""The sequence-based encoders against their equations, and what the rest of the model needs of them.

Axes: P body, C channel, T frame, V joint, H hidden unit.
"""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from data_specs.read import load_spec
from data_specs.skeleton import Skeleton
from model.batch_norm import FrameNorm
from model.checkpoint import new_model
from model.cpstn import CPSTN, ModelConfig
from model.pooling import PoolConfig
from model.recipe import Recipe, load_recipe
from model.recurrent import RECURRENT, RecurrentConfig, RecurrentEncoder

pytestmark = pytest.mark.usefixtures("_seed")
P, C, T, V, H = 2, 3, 7, 25, 6
SMALL = RecurrentConfig(hidden=H)


@pytest.mark.parametrize(
    ("kind", "directions"), [("rnn", 1), ("lstm", 1), ("gru", 1), ("bilstm", 2), ("bigru", 2)]
)
def test_each_frame_goes_through_the_cell_in_turn(skeleton: Skeleton, kind: str, directions: int) -> None:
    """Coordinates of a frame in the wrong order, or bodies taken for frames, would still train."""
    encoder = RecurrentEncoder(skeleton, kind, SMALL).eval()
    _stir(encoder.input_norm)
    x_PCTV = torch.randn(P, C, T, V)
    q_PCTV = encoder(x_PCTV)
    assert q_PCTV.shape == (P, encoder.out_channels, T, 1)
    assert encoder.out_channels == H * directions
    for body in range(P):
        frames = [encoder.input_norm(x_PCTV[body, :, t].reshape(1, C * V))[0] for t in range(T)]
        forward = _run_slowly(encoder.layers, frames, "")
        torch.testing.assert_close(q_PCTV[body, :H, :, 0].T, forward)
        if directions == 2:
            backward = _run_slowly(encoder.layers, frames[::-1], "_reverse").flip(0)
            torch.testing.assert_close(q_PCTV[body, H:, :, 0].T, backward)


@pytest.mark.parametrize("kind", RECURRENT)
def test_every_parameter_learns_and_bodies_stay_apart(skeleton: Skeleton, kind: str) -> None:
    """A weight without a gradient is trained in name only; a body's features must be its own."""
    encoder = RecurrentEncoder(skeleton, kind, dataclasses.replace(SMALL, layers=2))
    x_PCTV = torch.randn(P, C, T, V)
    encoder(x_PCTV).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    encoder.eval()
    torch.testing.assert_close(encoder(x_PCTV)[1:], encoder(x_PCTV[1:]))
    assert encoder(x_PCTV).shape[2] == T


@pytest.mark.parametrize("kind", RECURRENT)
def test_as_many_layers_lie_one_on_the_other_as_are_asked_for(skeleton: Skeleton, kind: str) -> None:
    """A recipe's key without effect: a deeper encoder would be compared with itself."""
    encoder = RecurrentEncoder(skeleton, kind, dataclasses.replace(SMALL, layers=3))
    names = {name for name, _ in encoder.layers.named_parameters()}
    assert {name for name in names if name.startswith("weight_hh") and "reverse" not in name} == {
        f"weight_hh_l{layer}" for layer in range(3)
    }


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("pool", ["joints", "global"])
def test_the_model_pools_and_projects_recurrent_features(skeleton: Skeleton, kind: str, pool: str) -> None:
    """Contrast and classifier take any backbone; features without joints are averaged over time alone."""
    config = ModelConfig(
        pool=PoolConfig(pool),
        contrast_pool=PoolConfig(pool),
        projection=(12, 9),
        backbone=kind,
        recurrent=SMALL,
    )
    model = CPSTN(skeleton, config, spatial_pretext=False, temporal_pretext=False)
    q_PCTV = model.encode(torch.randn(3, C, T, V))
    h_ND = model.represent(q_PCTV, torch.tensor([0, 1, 1]), 2)
    assert h_ND.shape == (2, model.representation_size)
    torch.testing.assert_close(h_ND[1], q_PCTV[1:].mean(dim=(0, 2, 3)))
    assert model.project(h_ND).shape == (2, 9)


@pytest.mark.parametrize("kind", RECURRENT)
def test_the_final_state_is_the_one_that_has_seen_every_frame(skeleton: Skeleton, kind: str) -> None:
    """In the last frame, the backward direction has seen that frame alone."""
    config = ModelConfig(backbone=kind, recurrent=SMALL, pool=PoolConfig(statistics=("final",)))
    model = CPSTN(skeleton, config, spatial_pretext=False, temporal_pretext=False).eval()
    x_PCTV = torch.randn(P, C, T, V)
    q_PCTV = model.encode(x_PCTV)
    assert isinstance(model.encoder, RecurrentEncoder)
    states = model.encoder.layers(x_PCTV.transpose(1, 2).flatten(2) / (1 + 1e-5) ** 0.5)[1]
    final_2PH = states[0] if "lstm" in kind else states
    expected_PC = final_2PH.transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.final_state(q_PCTV), expected_PC)
    torch.testing.assert_close(model.represent(q_PCTV, torch.arange(P), P), expected_PC)


@pytest.mark.parametrize("kind", ["lstm", "bilstm", "bigru"])
@pytest.mark.parametrize("spans", [(1,), (1, 2)])
def test_what_is_contrasted_has_seen_its_span_in_both_directions(
    skeleton: Skeleton, kind: str, spans: tuple[int, ...]
) -> None:
    """A backward direction ends in its span's first frame; of the last one it has read that frame alone."""
    config = ModelConfig(
        backbone=kind, recurrent=SMALL, contrast_pool=PoolConfig(statistics=("final", "mean"), spans=spans)
    )
    model = CPSTN(skeleton, config, spatial_pretext=False, temporal_pretext=False).eval()
    q_PCTV = model.encode(torch.randn(3, C, T, V))
    found_ND = model.to_contrast(q_PCTV, torch.tensor([0, 1, 1]), 2)
    of_spans = []
    for first, last in [(0, 6), (0, 3), (4, 6)] if spans == (1, 2) else [(0, 6)]:
        span_PCT = q_PCTV[:, :, first : last + 1, 0]
        of_spans += [span_PCT[:, :H, -1], span_PCT[:, H:, 0], span_PCT.mean(2)]
    expected_PD = torch.cat(of_spans, dim=1)
    torch.testing.assert_close(found_ND, torch.stack([expected_PD[0], (expected_PD[1] + expected_PD[2]) / 2]))


@pytest.mark.parametrize("kind", RECURRENT)
def test_half_precision_leaves_recurrent_layers_as_they_are(skeleton: Skeleton, kind: str) -> None:
    """An error of three digits would be taken over from frame to frame; and some CPUs have no such LSTM."""
    encoder = RecurrentEncoder(skeleton, kind, SMALL).eval()
    x_PCTV = torch.randn(P, C, T, V)
    expected_PCTV = encoder(x_PCTV)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_PCTV = encoder(x_PCTV)
    assert found_PCTV.dtype == torch.float32
    assert torch.equal(found_PCTV, expected_PCTV)


@pytest.mark.parametrize(
    ("spatial", "temporal", "decoders"),
    [(1, 1, {"spatial_decoder", "temporal_decoder"}), (1, 0, {"spatial_decoder"}), (0, 0, set())],
)
def test_a_pretext_of_weight_0_has_no_decoder(spatial: int, temporal: int, decoders: set[str]) -> None:
    """Dead weights would lie in every checkpoint, and their optimiser state in memory."""
    recipe = Recipe(spatial_weight=spatial, temporal_weight=temporal)
    model = new_model(load_spec("ntu60"), recipe)
    assert {name for name, _ in model.named_children() if "decoder" in name} == decoders


def test_the_seed_decides_the_first_weights() -> None:
    """Repetitions that all began at one seed's weights would look closer to each other than they are."""
    spec = load_spec("ntu60")
    one, again, other = (new_model(spec, Recipe(seed=seed)).encoder.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_what_a_recipe_leaves_out_does_not_change_the_encoders_first_weights() -> None:
    """Rows with and without pretexts start alike, so that a difference is the pretexts'."""
    spec = load_spec("ntu60")
    with_both, without = (
        new_model(spec, Recipe(spatial_weight=weight, temporal_weight=weight)).encoder.state_dict()
        for weight in (1, 0)
    )
    assert all(torch.equal(with_both[name], without[name]) for name in with_both)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.backbone=bilstm"], r"spatial_weight is 1\.0; expected 0 with model\.backbone = 'bilstm'"),
        (["model.backbone=rnn", "spatial_weight=0"], r"temporal_weight is 1\.0; expected 0"),
        (
            ["model.backbone=tcn"],
            r"model\.backbone is 'tcn'; expected one of st_gcn, statistics, rnn, lstm, gru, bilstm",
        ),
        (["model.recurrent.hidden=0"], r"model\.recurrent\.hidden is 0"),
        (["model.recurrent.layers=-1"], r"model\.recurrent\.layers is -1"),
    ],
)
def test_a_wrong_backbone_is_named_with_the_way_out(changes: list[str], message: str) -> None:
    """The user learns which key to mend before any hour of training is spent."""
    with pytest.raises(ValueError, match=message):
        load_recipe("compact", tuple(changes))


def test_an_odd_number_of_features_is_fine_where_nothing_is_split(skeleton: Skeleton) -> None:
    """The check of the channels' halves is for decoders, which a recurrent backbone does not have."""
    config = ModelConfig(backbone="rnn", recurrent=RecurrentConfig(hidden=5))
    model = CPSTN(skeleton, config, spatial_pretext=False, temporal_pretext=False)
    assert model.representation_size == 5


def _run_slowly(layers: nn.RNNBase, frames: list[Tensor], direction: str) -> Tensor:
    """(T, H): one layer in one direction, gate by gate; torch's order of gates."""
    w_input, w_hidden = (getattr(layers, f"weight_{of}_l0{direction}") for of in ("ih", "hh"))
    b_input, b_hidden = (getattr(layers, f"bias_{of}_l0{direction}") for of in ("ih", "hh"))
    hidden = cell = torch.zeros(H)
    out = []
    for frame in frames:
        given, kept = w_input @ frame + b_input, w_hidden @ hidden + b_hidden
        if isinstance(layers, nn.LSTM):
            let_in, forget, new, let_out = (given + kept).chunk(4)
            cell = forget.sigmoid() * cell + let_in.sigmoid() * new.tanh()
            hidden = let_out.sigmoid() * cell.tanh()
        elif isinstance(layers, nn.GRU):
            (given_r, given_z, given_n), (kept_r, kept_z, kept_n) = given.chunk(3), kept.chunk(3)
            update = (given_z + kept_z).sigmoid()
            new = (given_n + (given_r + kept_r).sigmoid() * kept_n).tanh()
            hidden = (1 - update) * new + update * hidden
        else:
            hidden = (given + kept).tanh()
        out.append(hidden)
    return torch.stack(out)


def _stir(norm: FrameNorm) -> None:
    """Statistics that differ from 0 and 1, so that a norm in the wrong place is seen."""
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
