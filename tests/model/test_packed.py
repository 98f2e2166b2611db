"""Absent bodies are left out of all that is computed: a step of training gives the same, and costs less.

Axes: N sample, M body place, P packed body, C channel, T frame, V joint, L loss, Z size of a projection.
What has no suffix has a first axis of N * M places, the absent bodies among them.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data_specs.read import load_spec
from model.checkpoint import new_model
from model.cpstn import CPSTN
from model.losses import nt_xent
from model.objective import Pretraining, batch_losses
from model.recipe import Recipe, load_recipe
from model.share import share_out, split_batch
from pipeline.batch import Batch, View

pytestmark = pytest.mark.usefixtures("_float64_stands_for_float32")
CPU = torch.device("cpu")
SPEC = load_spec("ucla")
N, M, C, T, V = 7, 2, 3, 12, 20
BOTH, FIRST, SECOND = (True, True), (True, False), (False, True)
PRESENT_NM = torch.tensor([FIRST, BOTH, FIRST, SECOND, FIRST, BOTH, FIRST])
PRESENT = PRESENT_NM.flatten()
VISIBLE_N = torch.tensor([4, 5, 6, 7, 8, 9, 10])
TINY = (
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.decoder.dropout=0.0",
    "model.projection=[8, 6]",
    "contrast_weight=0.5",
    "spatial_weight=2",
    "temporal_weight=3",
)


class Dense(NamedTuple):
    """A batch of float64 (N * M, C, T, V): zeros where a body is absent or a frame masked."""

    original: Tensor
    spatial: Tensor
    temporal: Tensor

    def packed(self) -> Batch:
        """The same without the absent bodies."""
        views = (
            View("spatial", self.spatial[PRESENT], torch.full((N,), T)),
            View("temporal", self.temporal[PRESENT], VISIBLE_N),
        )
        sample_P, numbers_N = PRESENT_NM.nonzero()[:, 0], torch.arange(N)
        return Batch(self.original[PRESENT], views, sample_P, numbers_N, numbers_N, numbers_N, N)


def some_dense() -> Dense:
    """Seven samples with nine bodies, of which the second alone is there in one."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(3, N * M, C, T, V, generator=random, dtype=torch.float64)
    original, spatial, temporal = x * PRESENT.view(-1, 1, 1, 1)
    return Dense(original, spatial, temporal * seen_frames())


def seen_frames() -> Tensor:
    """bool (N * M, 1, T, 1), of the temporal view."""
    return (torch.arange(T) < VISIBLE_N.repeat_interleave(M).unsqueeze(1)).view(N * M, 1, T, 1)


class MaskedNorm(nn.BatchNorm2d):
    """Batch normalisation of all bodies with the statistics of those that are present."""

    def __init__(self, norm: nn.BatchNorm2d, present: Tensor) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.present = present

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        present = input[self.present].transpose(0, 1).flatten(1)
        mean_C, variance_C = present.mean(1), present.var(1, correction=0)
        self.running_mean.lerp_(mean_C.detach(), self.momentum)
        self.running_var.lerp_(present.detach().var(1), self.momentum)
        self.num_batches_tracked += 1
        centred, shape = input - mean_C.view(1, -1, 1, 1), (1, -1, 1, 1)
        deviation_C = (variance_C + self.eps).sqrt()
        return centred / deviation_C.view(shape) * self.weight.view(shape) + self.bias.view(shape)


def mask_norms(module: nn.Module, present: Tensor) -> None:
    """Replace every batch normalisation of bodies by a masked one."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, MaskedNorm(child, present))


def twins(recipe: Recipe) -> tuple[CPSTN, CPSTN]:
    """Two models of the same weights, the second with masked norms.

    No bias is 0, as untrained ones are: at 0, where a ReLU has no gradient, rounding would choose one for the
    masked frames.
    """
    packed, masked = new_model(SPEC, recipe).double(), new_model(SPEC, recipe)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in packed.parameters():
            weight.add_(torch.randn(weight.shape, generator=random, dtype=torch.float64), alpha=0.1)
    mask_norms(masked.encoder, PRESENT.repeat(2))
    mask_norms(masked.spatial_decoder, PRESENT)
    mask_norms(masked.temporal_decoder, PRESENT)
    masked.double().load_state_dict(packed.state_dict())
    return packed.train(), masked.train()


def masked_losses(model: CPSTN, dense: Dense, recipe: Recipe) -> Tensor:
    """The losses of Eq. 3 and their sum, of a model that gets every body, absent ones too."""
    q = model.encode(torch.cat([dense.spatial, dense.temporal]))
    there = PRESENT_NM.unsqueeze(2).double()
    pooled = q.mean(dim=2).view(2, N, M, -1)
    z_first_NZ, z_second_NZ = model.project((pooled * there).sum(2) / there.sum(1)).unbind()
    contrast = nt_xent(z_first_NZ, z_second_NZ, recipe.temperature)

    q_first, q_second = q.chunk(2)
    owed = PRESENT.view(-1, 1, 1, 1).expand(-1, C, T, V)
    unseen = owed & ~seen_frames()
    spatial = (model.reconstruct_spatial(q_first, T) - dense.original).square()[owed]
    temporal = (model.reconstruct_temporal(q_second, T) - dense.original).square()[unseen]
    reduce = torch.mean if recipe.reduction == "mean" else torch.sum
    terms = contrast, reduce(spatial), reduce(temporal)
    return torch.stack([*terms, 0.5 * terms[0] + 2 * terms[1] + 3 * terms[2]])


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name] / scale, value / scale, rtol=1e-9, atol=1e-11, msg=name)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("reduction=sum",),
        ("model.encoder.adaptive=A+B+C",),
        ("model.streams=['joint', 'bone', 'motion', 'distance']",),
    ],
)
def test_packed_training_equals_the_masked_dense_computation(changes: tuple[str, ...]) -> None:
    """An absent body that moved a mean, a statistic or a gradient would harm every sample of one person."""
    recipe, dense = load_recipe("compact", (*TINY, *changes)), some_dense()
    packed, masked = twins(recipe)
    found_L = Pretraining(packed, recipe).backward(share_out(dense.packed(), 1, CPU), step=0)
    expected_L = masked_losses(masked, dense, recipe)
    expected_L[3].backward()

    torch.testing.assert_close(found_L, expected_L.detach(), rtol=1e-10, atol=1e-12)
    assert len(gradients(masked)) == len(list(masked.parameters()))
    assert_same(gradients(packed), gradients(masked))
    assert_same(dict(packed.named_buffers()), dict(masked.named_buffers()))


@pytest.mark.parametrize("adaptive", ["A", "A+B+C"])
def test_an_absent_second_body_costs_nothing(adaptive: str) -> None:
    """Most recordings show one person: places for two would nearly double the hours of training."""
    recipe = load_recipe("compact", (*TINY, f"model.encoder.adaptive={adaptive}"))
    batch = some_dense().packed()
    first = split_batch(batch, N)[0]
    assert (len(batch.sample_P), len(first.sample_P)) == (9, 1)
    of_batch, of_one = operations(recipe, batch), operations(recipe, first)
    for part in ("STGCN", "Decoder"):
        assert of_batch[part] == 9 * of_one[part] > 0


def operations(recipe: Recipe, batch: Batch) -> dict[str, int]:
    """How many the losses and their gradients take, by the class of the model's part."""
    model = new_model(SPEC, recipe).double()
    with FlopCounterMode(display=False) as counter:
        batch_losses(model, batch, recipe, CPU).total.backward()
    counts = counter.get_flop_counts()
    return {part: sum(counts[part].values()) for part in ("STGCN", "Decoder")}
