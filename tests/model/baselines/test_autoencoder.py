"""The plain autoencoder rebuilds from the last state alone.

Axes: P packed present body, C channel, T frame, V joint.
"""

import pytest
import torch

from data_specs.read import load_spec
from model.baselines.autoencoder import Autoencoder
from model.checkpoint import new_model
from model.recipe import load_recipe
from model.share import share_out
from pipeline.batch import Batch

CPU = torch.device("cpu")
SPEC = load_spec("ucla")


def test_a_step_is_the_mean_squared_error_of_what_is_rebuilt_from_the_last_state(batch: Batch) -> None:
    """A decoder that saw the frames themselves would learn to copy, and the encoder nothing."""
    recipe = load_recipe("lstm-autoencoder", ("batch_size=5", "model.recurrent.hidden=6"))
    objective = Autoencoder(new_model(SPEC, recipe), recipe).eval()
    losses_L = objective.backward(share_out(batch, 1, CPU), step=0)
    errors = []
    for body_CTV in batch.original_PCTV:
        state_C = objective.model.encode(body_CTV[None])[0, :, -1, 0]
        memory, rebuilt = None, []
        for _ in range(body_CTV.shape[1]):
            out, memory = objective.head.cell(state_C[None, None], memory)  # type: ignore[operator]
            rebuilt.append(objective.head.read(out[0, 0]).view(3, 20))  # type: ignore[operator]
        seen_T = body_CTV.abs().sum(dim=(0, 2)) > 0
        errors.append((torch.stack(rebuilt, dim=1) - body_CTV)[:, seen_T].square().flatten())
    assert losses_L.tolist() == pytest.approx([torch.cat(errors).mean().item()] * 2, rel=1e-5)
    for name, weight in objective.named_parameters():
        assert name.startswith("model.projector") or weight.grad is not None, name
