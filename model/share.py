"""A rank's share of a batch: cut into parts, counted, and sent to the device.

Axes: N sample, P packed present body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from model.device import sent
from model.parallel import ALONE, Ranks
from pipeline.batch import Batch, View

# How many numbers the reconstruction from each view is averaged over: those of the whole batch, on all ranks.
Counts = tuple[Tensor | int, ...]


@dataclass(frozen=True)
class Share:
    """A rank's share of a batch, ready to be worked on.

    parts: on the device; each is worked on by itself.  counts: see `count_numbers`.  wait_until_copied: then
    the buffers that the batch came in may be filled again.
    """

    parts: list[Batch]
    counts: Counts
    wait_until_copied: Callable[[], None]


def share_out(batch: Batch, count: int, device: torch.device, ranks: Ranks = ALONE) -> Share:
    """Cut a rank's batch into `count` parts and send them to the device."""
    counts = count_numbers(batch, device, ranks)
    parts = [batch_on(part, device) for part in split_batch(batch, count)]
    if device.type != "cuda":
        return Share(parts, counts, lambda: None)
    return Share(parts, counts, torch.cuda.current_stream(device).record_event().synchronize)


def count_numbers(batch: Batch, device: torch.device, ranks: Ranks = ALONE) -> Counts:
    """The numbers that each view has to rebuild, at least 1: in a masked view those of unseen frames."""
    own = [_numbers_to_rebuild(batch, view) for view in batch.views]
    if ranks.world == 1:
        return tuple(max(1, number) for number in own)
    numbers = torch.tensor(own, dtype=torch.float64, pin_memory=device.type == "cuda")
    return tuple(ranks.sum(sent(numbers, device)).clamp(min=1).float())


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
    """The batch with its tensors on a device, but for the ids; see `sent`."""
    return batch.map(partial(sent, device=device))


def seed_dropout(seed: int, step: int, ranks: Ranks, part: int, parts: int) -> None:
    """Dropout depends on the recipe's seed, the step and the place in the batch: rank and part."""
    torch.manual_seed((((seed * 1_000_003 + step) * ranks.world + ranks.rank) * parts + part) % 2**63)
