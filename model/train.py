"""CP-STN pre-training: one readable loop. No labels are used.

Axes: N sample, P packed present body, C channel, T frame, V joint.
"""

import math
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from model.checkpoint import Run, load_checkpoint, new_model, save_checkpoint
from model.cpstn import CPSTN
from model.losses import nt_xent, spatial_reconstruction, temporal_reconstruction
from model.recipe import Recipe
from pipeline.loader import Batch, Samples, View, split_samples, train_batches
from pipeline.order import steps_per_epoch
from pipeline.store.shards import Shards


@dataclass(frozen=True)
class Losses:
    """The three losses of Eq. 3, unweighted, and their weighted sum."""

    contrast: Tensor
    spatial: Tensor
    temporal: Tensor
    total: Tensor

    def numbers(self) -> dict[str, float]:
        """As Python floats; waits for the device."""
        return {name: float(value.detach()) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Progress:
    """What the training loop reports after a step: steps done of all, and what this step was made of.

    epoch counts from 0; samples: of this step.
    """

    step: int
    steps: int
    epochs: int
    samples: int
    losses: dict[str, float]

    @property
    def epoch(self) -> int:
        return (self.step - 1) * self.epochs // self.steps

    @property
    def epoch_done(self) -> bool:
        return self.step * self.epochs % self.steps == 0


def train(
    shards: Shards,
    recipe: Recipe,
    run: Run,
    *,
    device: torch.device,
    threads: int = 2,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> CPSTN:
    """Train in `run`, which exists; with `resume`, go on from its checkpoint, if any. Returns the model.

    A checkpoint is written after every epoch; a run that was stopped goes on from there, on the CPU to the
    very same weights. Raises ValueError if the shards are not those of the run or cannot be trained on;
    RuntimeError if a loss or a weight stops being a number.
    """
    check_single_process()
    if run.manifest() != shards.manifest.digest:
        raise ValueError(f"{shards.location}: other shards than those that {run.folder} was started on")
    samples = training_samples(shards, recipe)
    per_epoch = steps_per_epoch(len(samples), recipe.batch_size)
    steps = recipe.epochs * per_epoch
    model = new_model(shards.spec, recipe).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    step = _restore(run, model, optimiser, steps) if resume and run.checkpoint.exists() else 0
    batches = train_batches(
        samples,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start_step=step,
        end_step=steps,
        views=recipe.views,
        config=recipe.view,
        threads=threads,
        pin_memory=device.type == "cuda",
    )
    with SummaryWriter(str(run.folder), purge_step=step + 1) as board, closing(batches):
        for batch in batches:
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr_at(step, steps)
            torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout, too, depends on the step alone
            losses = batch_losses(model, batch, recipe, device)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            step += 1
            # Waits for the device: only then may the batch's buffers be filled again.
            numbers = losses.numbers()
            _check_finite(numbers, step, batch, shards, run)
            for name, value in numbers.items():
                board.add_scalar(f"loss/{name}", value, step)
            on_progress(Progress(step, steps, recipe.epochs, batch.num_samples, numbers))
            if step % per_epoch == 0:
                _check_weights(model, step, run)
                save_checkpoint(
                    run,
                    model,
                    optimiser,
                    recipe=recipe,
                    spec=shards.spec,
                    manifest=run.manifest(),
                    step=step,
                    steps=steps,
                )
    return model


def check_single_process() -> None:
    """Raises ValueError under torchrun: its processes would all train the same, into one run."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise ValueError(
            f"started as one of {world} processes (WORLD_SIZE), each of which would train the same: training "
            f"uses one process; start it without torchrun"
        )


def training_samples(shards: Shards, recipe: Recipe) -> Samples:
    """The samples that a recipe trains on. Raises ValueError if these shards do not have any, or none that
    temporal masking could be learnt from."""
    if shards.manifest.settings["resample"] == "pad":
        raise ValueError(
            f"{shards.location}: padded with zeros, which temporal masking would take for motion; "
            f"train on shards made with --resample linear or nearest"
        )
    return split_samples(shards, recipe.protocol or shards.spec.default_protocol, "train")


def batch_losses(model: CPSTN, batch: Batch, recipe: Recipe, device: torch.device) -> Losses:
    """Encode both views in one pass, contrast them (Eq. 4, 5), rebuild the original from each (Eq. 6, 7)."""
    original_PCTV = batch.original_PCTV.to(device, non_blocking=True)
    sample_P = batch.sample_P.to(device, non_blocking=True)
    x_PCTV = torch.cat([view.x_PCTV.to(device, non_blocking=True) for view in batch.views])
    samples, frames = batch.num_samples, original_PCTV.shape[2]
    q_PCTV = model.encode(x_PCTV)
    h_ND = model.represent(q_PCTV, torch.cat([sample_P, sample_P + samples]), 2 * samples)
    first_NZ, second_NZ = model.project(h_ND).chunk(2)
    contrast = nt_xent(first_NZ, second_NZ, recipe.temperature)
    q_first_PCTV, q_second_PCTV = q_PCTV.chunk(2)
    spatial = temporal = torch.zeros((), device=device)
    first, second = batch.views
    if recipe.spatial_weight:
        rebuilt_PCTV = model.reconstruct_spatial(q_first_PCTV, frames)
        spatial = _reconstruction(rebuilt_PCTV, original_PCTV, first, sample_P, recipe.reduction)
    if recipe.temporal_weight:
        rebuilt_PCTV = model.reconstruct_temporal(q_second_PCTV, frames)
        temporal = _reconstruction(rebuilt_PCTV, original_PCTV, second, sample_P, recipe.reduction)
    weighted = (
        recipe.contrast_weight * contrast
        + recipe.spatial_weight * spatial
        + recipe.temporal_weight * temporal
    )
    return Losses(contrast, spatial, temporal, weighted)


def _reconstruction(
    rebuilt_PCTV: Tensor, original_PCTV: Tensor, view: View, sample_P: Tensor, reduction: str
) -> Tensor:
    """A masked view owes the frames it did not see (Eq. 7), any other the whole sequence (Eq. 6)."""
    if view.kind == "spatial":
        return spatial_reconstruction(rebuilt_PCTV, original_PCTV, reduction)
    visible_P = view.visible_N.to(sample_P.device)[sample_P]
    return temporal_reconstruction(rebuilt_PCTV, original_PCTV, visible_P, reduction)


def _restore(run: Run, model: CPSTN, optimiser: torch.optim.Optimizer, steps: int) -> int:
    """Load the run's checkpoint into model and optimiser; returns the steps already done."""
    checkpoint = load_checkpoint(run)
    if checkpoint.steps != steps:
        raise ValueError(
            f"{run.folder}: was planned for {checkpoint.steps} steps, not {steps}; start a new run"
        )
    model.load_state_dict(checkpoint.content["model"])
    optimiser.load_state_dict(checkpoint.content["optimiser"])
    return checkpoint.step


def _check_weights(model: CPSTN, step: int, run: Run) -> None:
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise RuntimeError(f"a weight is no longer a number at step {step}; {_way_out(run)}")


def _check_finite(numbers: dict[str, float], step: int, batch: Batch, shards: Shards, run: Run) -> None:
    if all(math.isfinite(value) for value in numbers.values()):
        return
    rows = set(batch.ids_N.tolist())
    keys = shards.table.loc[shards.table["row"].isin(rows), "key"].tolist()
    shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
    raise RuntimeError(
        f"the loss is no longer a number at step {step}: {numbers}; samples of the batch: {shown}; "
        f"{_way_out(run)}"
    )


def _way_out(run: Run) -> str:
    last = f"the last good checkpoint is {run.checkpoint}; " if run.checkpoint.exists() else ""
    return f"{last}a lower lr may help"
