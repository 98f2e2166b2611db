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
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from model.cpstn import CPSTN
from model.losses import nt_xent, spatial_reconstruction, temporal_reconstruction
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from pipeline.batch import Batch, View
from pipeline.samples import CAMERA

Contrast = Callable[[Tensor, Tensor], Tensor]
# How many numbers the reconstruction from each view is averaged over: those of the whole batch, on all ranks.
Counts = tuple[Tensor | int, ...]


@dataclass(frozen=True)
class Losses:
    """The three losses of Eq. 3, unweighted, and their weighted sum."""

    contrast: Tensor
    spatial: Tensor
    temporal: Tensor
    total: Tensor


@dataclass(frozen=True)
class Share:
    """A rank's share of a batch, ready to be worked on.

    parts: on the device; each is worked on by itself.  counts: see `count_numbers`.  copied: waits until the
    buffers that the batch came in may be filled again.
    """

    parts: list[Batch]
    counts: Counts
    copied: Callable[[], None]


@dataclass(frozen=True)
class Encoded:
    """Both views of a batch: features q of each body, projections z of each sample."""

    q_first_PCtV: Tensor
    q_second_PCtV: Tensor
    first_NZ: Tensor
    second_NZ: Tensor


class Pretraining(nn.Module):
    """CP-STN's own objective; no labels are used. `head` is what is trained beside the model: nothing."""

    loss_names = ("contrast", "spatial", "temporal", "total")
    head: nn.Module | None = None

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.ranks = ranks

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
        return torch.cat([terms, weighted_sum(recipe, *terms).unsqueeze(0)])

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

    ranks, counts: of the whole batch, where this is a part of it.  contrast: instead of NT-Xent. A loss of
    weight 0 is not computed, and is 0.
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


def encode_views(model: CPSTN, batch: Batch, precision: str) -> Encoded:
    """Both views through encoder and projector, in one pass."""
    samples, x_PCTV = batch.num_samples, torch.cat([view.x_PCTV for view in batch.views])
    with mixed_precision(precision, x_PCTV.device):
        q_PCtV = model.encode(x_PCTV)
        first_P, second_P = (batch.bodies_of(view) for view in batch.views)
        sample_P = torch.cat([first_P, second_P + samples])
        pooled_ND = model.to_contrast(q_PCtV, sample_P, 2 * samples)
        first_NZ, second_NZ = model.project(pooled_ND).chunk(2)
    q_first_PCtV, q_second_PCtV = q_PCtV.split([len(first_P), len(second_P)])
    return Encoded(q_first_PCtV, q_second_PCtV, first_NZ, second_NZ)


def share_out(batch: Batch, count: int, device: torch.device, ranks: Ranks = ALONE) -> Share:
    """Cut a rank's batch into `count` parts and send them to the device."""
    counts = count_numbers(batch, device, ranks)
    parts = [batch_on(part, device) for part in split_batch(batch, count)]
    if device.type != "cuda":
        return Share(parts, counts, lambda: None)
    copied = torch.cuda.Event()
    copied.record()
    return Share(parts, counts, copied.synchronize)


def count_numbers(batch: Batch, device: torch.device, ranks: Ranks = ALONE) -> Counts:
    """The numbers that each view has to rebuild, at least 1: in a masked view those of unseen frames."""
    own = [_numbers_to_rebuild(batch, view) for view in batch.views]
    if ranks.world == 1:
        return tuple(max(1, number) for number in own)
    numbers = torch.tensor(own, dtype=torch.float64, pin_memory=device.type == "cuda")
    return tuple(ranks.sum(numbers.to(device, non_blocking=True)).clamp(min=1).float())


def _numbers_to_rebuild(batch: Batch, view: View) -> int:
    bodies, channels, frames, joints = view.x_PCTV.shape
    if view.kind != "temporal":
        return bodies * channels * frames * joints
    unseen_P = frames - view.visible_N[batch.bodies_of(view)]
    return int(unseen_P.sum()) * channels * joints


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """The batch in that many parts of nearly as many samples each; fewer where there are fewer samples."""
    count = min(count, batch.num_samples)
    if count == 1:
        return [batch]
    bounds_N = [batch.num_samples * index // count for index in range(count + 1)]
    return [_cut(batch, slice(*bounds)) for bounds in pairwise(bounds_N)]


def _cut(batch: Batch, samples: slice) -> Batch:
    bodies = _bodies_in(batch.sample_P, samples)
    return Batch(
        original_PCTV=batch.original_PCTV[bodies],
        views=tuple(_cut_view(batch, view, samples) for view in batch.views),
        sample_P=batch.sample_P[bodies] - samples.start,
        ids_N=batch.ids_N[samples],
        labels_N=batch.labels_N[samples],
        performances_N=batch.performances_N[samples],
        num_samples=samples.stop - samples.start,
    )


def _cut_view(batch: Batch, view: View, samples: slice) -> View:
    bodies = _bodies_in(batch.bodies_of(view), samples)
    return View(
        view.kind,
        view.x_PCTV[bodies],
        view.visible_N[samples],
        None if view.target_PCTV is None else view.target_PCTV[bodies],
        None if view.sample_P is None else view.sample_P[bodies] - samples.start,
    )


def _bodies_in(sample_P: Tensor, samples: slice) -> slice:
    """The packed bodies of a span of samples."""
    first, end = torch.searchsorted(sample_P, torch.tensor([samples.start, samples.stop])).tolist()
    return slice(first, end)


def batch_on(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device, but for the ids. Copies to CUDA may be still under way."""
    send = partial(Tensor.to, device=device, non_blocking=device.type == "cuda")

    def send_view(view: View) -> View:
        return replace(
            view,
            x_PCTV=send(view.x_PCTV),
            visible_N=send(view.visible_N),
            target_PCTV=None if view.target_PCTV is None else send(view.target_PCTV),
            sample_P=None if view.sample_P is None else send(view.sample_P),
        )

    return replace(
        batch,
        original_PCTV=send(batch.original_PCTV),
        views=tuple(send_view(view) for view in batch.views),
        sample_P=send(batch.sample_P),
        labels_N=send(batch.labels_N),
        performances_N=send(batch.performances_N),
    )


def _contrast_of(recipe: Recipe, ranks: Ranks, performances_N: Tensor) -> Contrast:
    """NT-Xent. Where two cameras' recordings are positives, no two of a performance are negatives."""
    return partial(
        nt_xent,
        temperature=recipe.temperature,
        ranks=ranks,
        performances_N=performances_N if recipe.positives == CAMERA else None,
    )


def seed_dropout(seed: int, step: int, ranks: Ranks, part: int, parts: int) -> None:
    """Dropout depends on the recipe's seed, the step and the place in the batch: rank and part."""
    torch.manual_seed((((seed * 1_000_003 + step) * ranks.world + ranks.rank) * parts + part) % 2**63)


def mixed_precision(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 for what gains by it where the recipe says so; weights and losses stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


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
