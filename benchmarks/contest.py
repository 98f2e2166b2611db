"""One training step done by our network and by one written the usual way, with the same weights and data.

Axes: N sample, M body slot, P packed present body, B present body of one sample, C channel, T frame, V joint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import views
from benchmarks.data import SPEC, TWO_BODIES
from benchmarks.pairs import Pair, Work
from benchmarks.references.plain_stgcn import PlainBatch, PlainCPSTN, plain_batch, refuse_unlike
from model.checkpoint import new_model
from model.cpstn import CPSTN
from model.device import mixed_precision, reuse_freed_memory
from model.objective import batch_losses, weighted_sum
from model.recipe import Recipe
from model.share import count_numbers
from pipeline.batch import Batch, View

ENCODER, STEP = "encoder, forward and backward", "training step"
OURS, PLAIN = "ours", "plain"
PRECISION = {"cpu": "float32", "cuda": "bf16"}  # ours; the plain one's is float32
# Relative to the largest value. On a GPU cuDNN's convolutions of float32 are TF32's.
APART = {"cpu": 1e-3, "cuda": 1e-2}

Samples = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Contest:
    """Ours and the plain network on one batch of these samples, each float32 (B, C, T, V) metres.

    threads: of torch, on a CPU. Raises ValueError for a recipe that the plain network has no counterpart of.
    """

    recipe: Recipe
    samples: tuple[NDArray[np.float32], ...]
    device: torch.device
    threads: int = 1

    def __post_init__(self) -> None:
        refuse_unlike(self.recipe)

    def pairs(self) -> list[Pair]:
        """The encoder alone, and the whole step."""
        count = len(self.samples)
        return [
            Pair(name, "samples", *(Work(self.work(name, side), count) for side in (OURS, PLAIN)))
            for name in (ENCODER, STEP)
        ]

    def work(self, name: str, side: str) -> Callable[[], None]:
        """One forward and backward of the encoder on one view, or one whole step."""
        torch.set_num_threads(self.threads)
        reuse_freed_memory(self.device)
        model, batch = self.model(), self.batch()
        if side == OURS:
            recipe = replace(self.recipe, precision=PRECISION[self.device.type])
            mixed = mixed_precision(recipe.precision, self.device)
            if name == ENCODER:
                return partial(encode_both_ways, model.encoder, batch.views[0].x_PCTV, mixed)
            optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
            # In training they are counted on the host, before the batch is sent.
            counts = count_numbers(batch, self.device)
            return partial(
                training_step,
                optimiser,
                lambda: batch_losses(model, batch, recipe, self.device, counts=counts).total,
            )
        plain, dense = PlainCPSTN(model).to(self.device), plain_batch(batch)
        if name == ENCODER:
            as_written = mixed_precision("float32", self.device)
            return partial(encode_both_ways, plain.encoder, dense.views_NMCTV[0], as_written)
        optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
        return partial(training_step, optimiser, lambda: plain_total(plain, dense, self.recipe))

    def model(self) -> CPSTN:
        """Ours, in training mode; always with the same weights."""
        return new_model(SPEC, self.recipe).to(self.device).train()

    def batch(self) -> Batch:
        """The samples and their two views, on the device."""
        packed = views.batch_of(self.samples, 0)
        empty_PCTV = np.zeros_like(packed.x_PCTV)
        made = views.Views(empty_PCTV, empty_PCTV.copy(), np.zeros_like(packed.ids_N))
        views.ours(packed, made)
        original_PCTV, spatial_PCTV, temporal_PCTV, sample_P, ids_N, visible_N = (
            torch.from_numpy(array).to(self.device)
            for array in (
                packed.x_PCTV,
                made.spatial_PCTV,
                made.temporal_PCTV,
                packed.sample_P,
                packed.ids_N,
                made.visible_N,
            )
        )
        whole_N = torch.full_like(visible_N, original_PCTV.shape[2])
        both = (View("spatial", spatial_PCTV, whole_N), View("temporal", temporal_PCTV, visible_N))
        none_N = torch.zeros_like(ids_N)
        return Batch(original_PCTV, both, sample_P, ids_N, none_N, none_N, len(ids_N))

    def check(self) -> None:
        """Raises ValueError unless both give the same features and losses in evaluation mode, float32."""
        check_equal(self.model(), self.batch(), replace(self.recipe, precision="float32"))


@torch.no_grad()
def check_equal(model: CPSTN, batch: Batch, recipe: Recipe) -> None:
    """Raises ValueError unless this model and the plain one with its weights give the same, see `APART`."""
    device = batch.original_PCTV.device
    model.eval()
    plain, dense = PlainCPSTN(model).to(device).eval(), plain_batch(batch)
    q_PCTV = model.encode(batch.views[0].x_PCTV)
    q_BCTV = plain.encoder(dense.views_NMCTV[0])[dense.present_NM.flatten()]
    ours = batch_losses(model, batch, recipe, device).total
    theirs = plain_total(plain, dense, recipe)
    for name, one, other in (("features", q_PCTV, q_BCTV), ("loss", ours, theirs)):
        apart = float((one - other).abs().max() / other.abs().max())
        if not apart < APART[device.type]:
            raise ValueError(f"{name}: ours and the plain ones are {apart:.2g} apart: nothing to compare")


def plain_total(plain: PlainCPSTN, dense: PlainBatch, recipe: Recipe) -> Tensor:
    """The plain network's loss, Eq. 3."""
    return weighted_sum(recipe, *plain.losses(dense, recipe.temperature))


def encode_both_ways(encoder: nn.Module, x: Tensor, mixed: torch.autocast) -> None:
    """Features, and the gradients of all weights."""
    encoder.zero_grad(set_to_none=True)
    with mixed:
        features = encoder(x)
    features.backward(torch.ones_like(features))


def training_step(optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """Losses, gradients and what the optimiser makes of them."""
    optimiser.zero_grad(set_to_none=True)
    loss().backward()
    optimiser.step()


def with_pairs(samples: Samples) -> tuple[NDArray[np.float32], ...]:
    """The samples; where none has two bodies, NTU's share of them (at least one) with the next one's body
    as its second. Such a batch is for its size, not for learning."""
    if any(len(bodies_BCTV) > 1 for bodies_BCTV in samples):
        return tuple(samples)
    share = max(1, round(TWO_BODIES * len(samples)))
    paired = [np.concatenate([samples[index], samples[index + 1 - len(samples)]]) for index in range(share)]
    return (*paired, *samples[share:])
