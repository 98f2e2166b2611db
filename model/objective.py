"""What a step of pre-training minimises, Eq. 3, and its gradients: for a batch at once, or part by part.

A batch may be spread over ranks, and each rank's share be worked on in several parts, which saves memory.
Both reconstructions are sums over samples, so that their parts simply add up. The contrast compares all
samples with all others: with parts, all are encoded without gradient first, the contrast's gradient with
respect to their projections z is taken once, and each part is then encoded again and its z pulled along that
gradient (Gao et al. 2021, "gradient caching"). The gradients are those of the whole batch, except that batch
normalisation sees one part at a time: its statistics are those of the part, on all ranks.

Axes: N sample, P packed present body, C channel, T frame (t after the encoder's strides), V joint, Z size of
a projection.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from model.cpstn import CPSTN
from model.device import mixed_precision
from model.losses import nt_xent, spatial_reconstruction, temporal_reconstruction
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.share import Counts, Share, batch_on, count_numbers, seed_dropout
from pipeline.batch import Batch, View
from pipeline.samples import CAMERA

Contrast = Callable[[Tensor, Tensor], Tensor]

# Of Eq. 3; the recipe's key of each one's weight begins so.
TERMS = ("contrast", "spatial", "temporal")


@dataclass(frozen=True)
class Losses:
    """The three losses of Eq. 3, unweighted, and their weighted sum; of a part of a batch the contrast's
    stand-in, see `batch_losses`."""

    contrast: Tensor
    spatial: Tensor
    temporal: Tensor
    total: Tensor


@dataclass(frozen=True)
class EncodedViews:
    """Both views of a batch: features q of each body, projections z of each sample."""

    q_first_PCtV: Tensor
    q_second_PCtV: Tensor
    first_NZ: Tensor
    second_NZ: Tensor


class Pretraining(nn.Module):
    """CP-STN's own objective; no labels are used. `head` is what is trained beside the model: nothing.

    loss_names: the losses that have a weight, and "total".
    """

    head: nn.Module | None = None

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.ranks = ranks
        self._weighted = [i for i, name in enumerate(TERMS) if getattr(recipe, f"{name}_weight")]
        self.loss_names = (*(TERMS[i] for i in self._weighted), "total")

    def backward(self, share: Share, step: int) -> Tensor:
        """Add the batch's gradients to those of the weights. The losses, detached: this rank's share of them,
        in the order of `loss_names`."""
        recipe, parts, ahead = self.recipe, share.parts, None
        if len(parts) > 1 and recipe.contrast_weight:
            ahead = self._contrast_ahead(parts, step)
        done = []
        for index, batch in enumerate(parts):
            seed_dropout(recipe.seed, step, self.ranks, index, len(parts))
            contrast = ahead.pull(index) if ahead else None
            losses = batch_losses(
                self.model, batch, recipe, batch.original_PCTV.device, self.ranks, share.counts, contrast
            )
            losses.total.backward()
            done.append(torch.stack([losses.contrast, losses.spatial, losses.temporal]).detach())
        terms = torch.stack(done).sum(dim=0)
        if ahead:
            terms = torch.cat([ahead.value.unsqueeze(0), terms[1:]])
        return torch.stack([*(terms[i] for i in self._weighted), weighted_sum(recipe, *terms)])

    def _contrast_ahead(self, parts: list[Batch], step: int) -> "_Ahead":
        """The contrast of the whole batch, and its gradient with respect to each part's z."""
        first, second = [], []
        with torch.no_grad(), unchanged_buffers(self.model):
            for index, batch in enumerate(parts):
                seed_dropout(self.recipe.seed, step, self.ranks, index, len(parts))
                encoded = encode_views(self.model, batch, self.recipe.precision)
                first.append(encoded.first_NZ.float())
                second.append(encoded.second_NZ.float())
        first_NZ, second_NZ = torch.cat(first).requires_grad_(), torch.cat(second).requires_grad_()
        performances_N = torch.cat([batch.performances_N for batch in parts])
        value = _contrast_of(self.recipe, self.ranks, performances_N)(first_NZ, second_NZ)
        value.backward()
        assert first_NZ.grad is not None
        assert second_NZ.grad is not None
        sizes = [batch.num_samples for batch in parts]
        return _Ahead(value.detach(), first_NZ.grad.split(sizes), second_NZ.grad.split(sizes))


@dataclass(frozen=True)
class _Ahead:
    """A contrast that was taken without the encoder's gradient, and what it asks of each part."""

    value: Tensor
    wanted_first_NZ: tuple[Tensor, ...]
    wanted_second_NZ: tuple[Tensor, ...]

    def pull(self, index: int) -> Contrast:
        """A stand-in for the contrast, with the same gradient with respect to this part's z."""
        return partial(
            _pull, wanted_first_NZ=self.wanted_first_NZ[index], wanted_second_NZ=self.wanted_second_NZ[index]
        )


def _pull(first_NZ: Tensor, second_NZ: Tensor, wanted_first_NZ: Tensor, wanted_second_NZ: Tensor) -> Tensor:
    return (first_NZ.float() * wanted_first_NZ).sum() + (second_NZ.float() * wanted_second_NZ).sum()


def batch_losses(
    model: CPSTN,
    batch: Batch,
    recipe: Recipe,
    device: torch.device,
    ranks: Ranks = ALONE,
    counts: Counts | None = None,
    contrast: Contrast | None = None,
) -> Losses:
    """Encode both views in one pass, contrast them (Eq. 4, 5), rebuild the original from each (Eq. 6, 7).

    ranks, counts: of the whole batch, where this is a part of it.  contrast: instead of NT-Xent, as its own
    value says nothing of a part. A loss of weight 0 is not computed, and is 0.
    """
    counts = counts or count_numbers(batch, device, ranks)
    batch = batch_on(batch, device)
    encoded = encode_views(model, batch, recipe.precision)
    contrasted = spatial = temporal = torch.zeros((), device=device)
    if recipe.contrast_weight:
        compare = contrast or _contrast_of(recipe, ranks, batch.performances_N)
        contrasted = compare(encoded.first_NZ, encoded.second_NZ)
    frames, reduction = batch.original_PCTV.shape[2], recipe.reduction
    if recipe.spatial_weight:
        with mixed_precision(recipe.precision, device):
            rebuilt_PCTV = model.reconstruct_spatial(encoded.q_first_PCtV, frames)
        spatial = _reconstruction(rebuilt_PCTV, batch, batch.views[0], reduction, counts[0])
    if recipe.temporal_weight:
        with mixed_precision(recipe.precision, device):
            rebuilt_PCTV = model.reconstruct_temporal(encoded.q_second_PCtV, frames)
        temporal = _reconstruction(rebuilt_PCTV, batch, batch.views[1], reduction, counts[1])
    return Losses(contrasted, spatial, temporal, weighted_sum(recipe, contrasted, spatial, temporal))


def encode_views(model: CPSTN, batch: Batch, precision: str) -> EncodedViews:
    """Both views through encoder and projector, in one pass."""
    samples, x_PCTV = batch.num_samples, torch.cat([view.x_PCTV for view in batch.views])
    with mixed_precision(precision, x_PCTV.device):
        q_PCtV = model.encode(x_PCTV)
        first_P, second_P = (batch.bodies_of(view) for view in batch.views)
        sample_P = torch.cat([first_P, second_P + samples])
        pooled_ND = model.to_contrast(q_PCtV, sample_P, 2 * samples)
        first_NZ, second_NZ = model.project(pooled_ND).chunk(2)
    q_first_PCtV, q_second_PCtV = q_PCtV.split([len(first_P), len(second_P)])
    return EncodedViews(q_first_PCtV, q_second_PCtV, first_NZ, second_NZ)


def _contrast_of(recipe: Recipe, ranks: Ranks, performances_N: Tensor) -> Contrast:
    """NT-Xent. Where two cameras' recordings are positives, no two of a performance are negatives."""
    return partial(
        nt_xent,
        temperature=recipe.temperature,
        ranks=ranks,
        performances_N=performances_N if recipe.positives == CAMERA else None,
    )


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Afterwards the running statistics are as before."""
    before = [buffer.clone() for buffer in model.buffers()]
    yield
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)


def _reconstruction(
    rebuilt_PCTV: Tensor, batch: Batch, view: View, reduction: str, count: Tensor | int
) -> Tensor:
    """A masked view owes the frames it did not see (Eq. 7), any other the whole sequence (Eq. 6).

    Of a view that was cropped, its own frames: what lies outside of the crop is nobody's guess.
    """
    target_PCTV = batch.target_of(view)
    if view.kind != "temporal":
        return spatial_reconstruction(rebuilt_PCTV, target_PCTV, reduction, count)
    visible_P = view.visible_N[batch.bodies_of(view)]
    return temporal_reconstruction(rebuilt_PCTV, target_PCTV, visible_P, reduction, count)


def weighted_sum(recipe: Recipe, contrast: Tensor, spatial: Tensor, temporal: Tensor) -> Tensor:
    """Eq. 3, from its three terms."""
    return (
        recipe.contrast_weight * contrast
        + recipe.spatial_weight * spatial
        + recipe.temporal_weight * temporal
    )
