"""P&C: the decoders are as weak as they are said to be, and rebuild what they should.

Axes: P packed present body, C channel, T frame, V joint.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from data_specs.read import load_spec
from model.baselines.predict_cluster import FixedStates, FixedWeights, PCLike
from model.checkpoint import new_model
from model.recipe import Recipe, load_recipe
from model.share import share_out
from pipeline.batch import Batch

CPU = torch.device("cpu")
SPEC = load_spec("ucla")
H = 6


def small(*changes: str) -> Recipe:
    return load_recipe("pc-like", ("batch_size=5", f"model.recurrent.hidden={H // 2}", *changes))


def gru(cell: Any, state: Tensor) -> Tensor:
    """One step without an input; torch's order of gates."""
    given = cell.bias_ih_l0
    kept = cell.weight_hh_l0 @ state + cell.bias_hh_l0
    (given_r, given_z, given_n), (kept_r, kept_z, kept_n) = given.chunk(3), kept.chunk(3)
    update = (given_z + kept_z).sigmoid()
    new = (given_n + (given_r + kept_r).sigmoid() * kept_n).tanh()
    moved: Tensor = (1 - update) * new + update * state
    return moved


def test_fixed_weights_run_on_from_the_state(batch: Batch) -> None:
    """Nothing but the encoder's state may tell the decoder what to rebuild."""
    torch.manual_seed(0)
    decoder, state_PC = FixedWeights(H, 60), torch.randn(6, H)
    rebuilt_PCTV = decoder(state_PC, batch.original_PCTV)
    for body, start in enumerate(state_PC):
        state = start
        for frame in range(batch.original_PCTV.shape[2]):
            state = gru(decoder.cell, state)
            frame_CV = decoder.read(state).view(3, 20)
            torch.testing.assert_close(rebuilt_PCTV[body, :, frame], frame_CV)
    torch.testing.assert_close(decoder(state_PC, torch.zeros_like(batch.original_PCTV)), rebuilt_PCTV)


def test_fixed_states_add_to_their_own_last_output(batch: Batch) -> None:
    """The state never moves on, so that the encoder has to hold the whole sequence."""
    torch.manual_seed(0)
    decoder: Any = FixedStates(60, 60)
    state_PC = torch.randn(6, 60)
    rebuilt_PCTV = decoder(state_PC, batch.original_PCTV)
    assert torch.equal(rebuilt_PCTV[:, :, 0], batch.original_PCTV[:, :, 0])
    for body, state in enumerate(state_PC):
        last = batch.original_PCTV[body, :, 0].flatten()
        for frame in range(1, batch.original_PCTV.shape[2]):
            last = last + decoder.read(decoder.cell(last[None], state[None])[0])
            torch.testing.assert_close(rebuilt_PCTV[body, :, frame], last.view(3, 20))


def test_the_gates_begin_open() -> None:
    """With torch's own initial weights the state is forgotten within some frames, and never learnt back."""
    cell: Any = FixedWeights(H, 60).cell
    assert cell.bias_ih_l0.tolist() == [1.0] * 2 * H + [0.0] * H
    assert not cell.bias_hh_l0.any()


@pytest.mark.parametrize(("weakened", "still"), [("weights", True), ("states", False)])
def test_fixed_weights_do_not_move(batch: Batch, weakened: str, still: bool) -> None:
    """Not by a gradient, nor by weight decay. Everything else learns."""
    recipe = small(f"pc_like.weakened={weakened}")
    objective = PCLike(new_model(SPEC, recipe), recipe)
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.1, weight_decay=0.1)
    before = {name: weight.detach().clone() for name, weight in objective.named_parameters()}
    for step in range(2):
        optimiser.zero_grad()
        objective.backward(share_out(batch, 1, CPU), step)
        optimiser.step()
    for name, weight in objective.named_parameters():
        moves = not (name.startswith("model.projector") or (still and name.startswith("head.cell")))
        assert torch.equal(weight, before[name]) != moves, name


@pytest.mark.parametrize("weakened", ["weights", "states"])
def test_a_step_is_the_mean_error_of_what_is_rebuilt_from_the_last_states(
    batch: Batch, weakened: str
) -> None:
    """Of the two directions: the forward one in the last frame, the backward one in the first."""
    recipe = small(f"pc_like.weakened={weakened}")
    objective = PCLike(new_model(SPEC, recipe), recipe).eval()
    losses_L = objective.backward(share_out(batch, 1, CPU), step=0)
    errors = []
    for body_CTV in batch.original_PCTV:
        q_CT = objective.model.encode(body_CTV[None])[0, :, :, 0]
        state_C = torch.cat([q_CT[: H // 2, -1], q_CT[H // 2 :, 0]])
        rebuilt_CTV = objective.head(state_C[None], body_CTV[None])[0]
        seen_T = body_CTV.abs().sum(dim=(0, 2)) > 0
        errors.append((rebuilt_CTV - body_CTV)[:, seen_T].abs().flatten())
    assert losses_L.tolist() == pytest.approx([torch.cat(errors).mean().item()] * 2, rel=1e-5)
