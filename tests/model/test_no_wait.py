"""Nothing in a step waits for the device: on a GPU the host could not prepare the next one meanwhile.

Shown on torch's device "meta", whose tensors have no numbers: whatever would wait for one raises there.
"""

import contextlib
from typing import Any

import pytest
import torch

import model.train as train_module
from model.parallel import ALONE
from model.recipe import load_recipe
from model.share import share_out
from pipeline.loader import train_batches
from pipeline.store.shards import Shards

META = torch.device("meta")
SMALL = ("batch_size=16", "lr=1e-3")


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("paper", ()),
        ("paper:graph-abc", ()),
        ("paper:bigru", ()),
        ("paper", ("accumulate=2",)),
        ("paper", ("model.contrast_pool.bodies=max", "model.decoder.upsampling=linear")),
        ("paper", ("objective=supervised",)),
        ("paper", ("reduction=sum", "views=['temporal', 'temporal']", "view.crop=0.5")),
        ("three-streams", ()),
        ("best", ()),
        ("as-cal-like", ()),
        ("ms2l-like", ()),
        ("pc-like", ()),
        ("lstm-autoencoder", ()),
    ],
)
def test_a_step_waits_for_no_number(
    shards: Shards, monkeypatch: pytest.MonkeyPatch, recipe: str, changes: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch, "autocast", _no_autocast)
    chosen = load_recipe(recipe, SMALL + changes)
    samples = train_module.training_samples(shards, chosen)
    objective = train_module._objective(shards, chosen, None, ALONE, META)
    optimiser = train_module._optimiser(objective, chosen, None, META)
    batches = train_batches(
        samples,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        start_step=0,
        end_step=2,
        views=train_module.views_of(chosen),
        config=chosen.view,
    )
    with contextlib.closing(batches):
        for step, batch in enumerate(batches):
            optimiser.zero_grad(set_to_none=True)
            losses_L = objective.backward(share_out(batch, chosen.accumulate, META), step)
            optimiser.step()
            assert losses_L.is_meta
            assert losses_L.shape == (len(objective.loss_names),)


def _no_autocast(*_: Any, **__: Any) -> contextlib.AbstractContextManager[None]:
    """torch knows none for this device."""
    return contextlib.nullcontext()
