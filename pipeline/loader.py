"""Samples to batches of views, as torch tensors.

Threads read and augment ahead into a ring of buffers: the kernels hold no GIL, so threads share the cores
without the copies and start-up of worker processes. What a batch holds depends on the seed and the step
alone. Samples come by a `Feed`: from where they lie, in any order, or from a stream of tars.

Axes: N sample, P packed present body (see `pipeline.batch`), C coordinate, T frame, V joint.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from pipeline.augment import ViewConfig, combined_view, crops, make_view
from pipeline.batch import VIEW_KINDS, Batch, View
from pipeline.order import Partners, batch_indices, partners, steps_per_epoch
from pipeline.samples import CAMERA, RECORDING, BodySource, Samples, check_positives
from pipeline.store.tar_shard import TarShards
from pipeline.stream import StreamFeed

# Twice the thousand that streaming loaders take by custom: 150 MB of NTU's samples, half a shard in each of
# 8 lanes.
SHUFFLE_BUFFER = 2048


class Feed(Protocol):
    """The bodies of one run's batches, step by step. `read` is called from several threads at once."""

    def positions(self, step: int) -> NDArray[np.int64]:
        """Which of the samples this rank's batch of a global step is made of."""
        ...

    def read(self, step: int, out_PCTV: NDArray[np.float32]) -> None:
        """Copy the bodies of these samples, packed. Called once for every step."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading ahead; whoever waits in `read` gets an exception."""
        ...


@dataclass(frozen=True, eq=False)
class RandomFeed:
    """Reads every batch from where its samples lie."""

    samples: Samples
    source: BodySource
    batch_size: int
    seed: int
    rank: int
    world: int

    def positions(self, step: int) -> NDArray[np.int64]:
        return batch_indices(
            step, len(self.samples), self.batch_size, self.seed, rank=self.rank, world=self.world
        )

    def read(self, step: int, out_PCTV: NDArray[np.float32]) -> None:
        chosen = self.samples.take(self.positions(step))
        self.source.read_bodies(chosen.rows_N, chosen.num_bodies_N, out_PCTV)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is read ahead here."""


@dataclass(frozen=True, eq=False)
class _Slot:
    """The buffers of one batch, as large as any batch can be; the views' in the order of their kinds.

    partner_PCTV: of another camera's recordings; None without.  cropped_PCTV: of cropped views; none without
    crops.
    """

    original_PCTV: torch.Tensor
    partner_PCTV: torch.Tensor | None
    views_PCTV: tuple[torch.Tensor, ...]
    cropped_PCTV: tuple[torch.Tensor, ...]
    visible_N: tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class _Maker:
    """Makes a step's batch with its views, in buffers.

    beside: whose recording the second view shows instead of each sample's own; None where it is its own.
    """

    samples: Samples
    feed: Feed
    steps_in_epoch: int
    seed: int
    views: tuple[str, ...]
    config: ViewConfig
    beside: Partners | None
    pin_memory: bool

    def slot(self, num_samples: int) -> _Slot:
        """Buffers for batches of exactly num_samples, whichever samples they are."""
        capacity, pin_memory = num_samples * int(self.samples.num_bodies_N.max()), self.pin_memory
        bodies = partial(_bodies_buffer, self.samples, capacity, pin_memory)
        num_views = len(self.views)
        num_crops = num_views if any(crops(kind, self.config) for kind in self.views) else 0
        return _Slot(
            original_PCTV=bodies(),
            partner_PCTV=bodies() if self.beside else None,
            views_PCTV=tuple(bodies() for _ in range(num_views)),
            cropped_PCTV=tuple(bodies() for _ in range(num_crops)),
            visible_N=tuple(
                torch.empty(num_samples, dtype=torch.int64, pin_memory=pin_memory) for _ in range(num_views)
            ),
        )

    def fill(self, step: int, slot: _Slot) -> Batch:
        """The batch of a global step, in a slot."""
        positions_N, epoch = self.feed.positions(step), step // self.steps_in_epoch
        batch = _batch(self.samples.take(positions_N), slot.original_PCTV)
        self.feed.read(step, batch.original_PCTV.numpy())
        second = batch
        if self.beside and slot.partner_PCTV is not None:
            others = self.samples.take(self.beside.of(positions_N, self.seed, epoch))
            second = _read(others, slot.partner_PCTV)
        made = []
        for index in range(len(self.views)):
            shown = batch if index == 0 else second
            view = self._view(shown, slot, index, epoch)
            made.append(view if shown is batch else _of_other_recordings(view, shown))
        whole = replace(batch, views=tuple(made))
        # What lies in no buffer is small, and pinned now; the buffers are already.
        return whole.map(torch.Tensor.pin_memory) if self.pin_memory else whole

    def _view(self, batch: Batch, slot: _Slot, index: int, epoch: int) -> View:
        """The view of this index of a batch without views, in its place of the slot."""
        kind, x_PCTV = self.views[index], batch.original_PCTV.numpy()
        view_PCTV, visible_N = slot.views_PCTV[index][: len(x_PCTV)], slot.visible_N[index]
        cropped_PCTV = slot.cropped_PCTV[index][: len(x_PCTV)] if crops(kind, self.config) else None
        make_view(
            *(kind, x_PCTV, batch.sample_P.numpy(), batch.ids_N.numpy()),
            seed=self.seed,
            epoch=epoch,
            view=index,
            config=self.config,
            skeleton=self.samples.skeleton,
            out_PCTV=view_PCTV.numpy(),
            visible_N=visible_N.numpy(),
            cropped_PCTV=None if cropped_PCTV is None else cropped_PCTV.numpy(),
        )
        return View(kind, view_PCTV, visible_N, cropped_PCTV)


def train_batches(
    samples: Samples,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    end_step: int,
    views: tuple[str, ...],
    config: ViewConfig,
    positives: str = RECORDING,
    threads: int = 2,
    prefetch: int = 4,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    buffer: int = SHUFFLE_BUFFER,
) -> Generator[Batch, None, None]:
    """The batches of the global steps start_step..end_step-1, shuffled anew in every epoch, with their views.

    views: one of `batch.VIEW_KINDS` each; a view's position is part of its random numbers' identity.
    positives: what the second view shows: the same "recording" as the first, or what another "camera" made of
    the same performance, drawn anew in every epoch, where there is one; see `check_positives`. Steps, rank,
    world and sets smaller than batch_size: as in `order.batch_indices`. The number of threads and of
    prefetched batches changes no bit. Samples in tars are shuffled as `order.stream_order` says, by a buffer
    of `buffer` samples; the others as a whole.

    A batch's float32 tensors and visible_N lie in buffers that are used again: they are valid until the next
    batch is asked for. Who copies them to a device without blocking has to wait for the copy before that.
    Closing the iterator stops the threads; an exception in a thread is raised here, in its batch's place.

    Raises ValueError at once for a setting that cannot work.
    """
    for kind in views:
        if kind not in VIEW_KINDS:
            raise ValueError(f"unknown view {kind!r}; expected one of {', '.join(VIEW_KINDS)}")
    if threads < 1 or prefetch < 1:
        raise ValueError(f"threads is {threads} and prefetch {prefetch}; expected at least 1 of each")
    check_positives(samples, positives)
    if buffer < 1:
        raise ValueError(f"buffer is {buffer}; expected at least 1 sample")
    share = len(batch_indices(start_step, len(samples), batch_size, seed, rank=rank, world=world))
    feed: Feed
    if isinstance(samples.source, TarShards):
        feed = StreamFeed(
            samples.source,
            samples.rows_N,
            samples.num_bodies_N,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            end_step=end_step,
            rank=rank,
            world=world,
            buffer=buffer,
            read_ahead=prefetch + 1,
        )
    else:
        feed = RandomFeed(samples, samples.source, batch_size, seed, rank, world)
    maker = _Maker(
        samples=samples,
        feed=feed,
        steps_in_epoch=steps_per_epoch(len(samples), batch_size),
        seed=seed,
        views=views,
        config=config,
        beside=partners(samples.performances_N) if positives == CAMERA else None,
        pin_memory=pin_memory,
    )
    ring = [maker.slot(share) for _ in range(prefetch + 1)]
    return _in_order(feed, maker.fill, range(start_step, end_step), ring, threads)


def sequential_batches(samples: Samples, batch_size: int) -> Iterator[Batch]:
    """All samples once, in their order and without views, for evaluation; the last batch may be short.

    Every batch has memory of its own. The samples come from a source that can be read in any order. Raises
    ValueError if there is no sample or batch_size is below 1.
    """
    steps = steps_per_epoch(len(samples), batch_size, drop_last=False)
    for step in range(steps):
        part = samples.take(np.arange(step * batch_size, min((step + 1) * batch_size, len(samples))))
        yield _read(part, _bodies_buffer(samples, int(part.num_bodies_N.sum()), pin_memory=False))


def changed_copy(
    batch: Batch, skeleton: Skeleton, config: ViewConfig, *, seed: int, copy: int
) -> torch.Tensor:
    """The batch's bodies cropped and then changed as in a spatial view, nothing masked: float32 (P, C, T, V).

    copy: one of any number of copies; it takes the epoch's place in the random numbers' identity.
    """
    sample_P, ids_N = batch.sample_P.numpy(), batch.ids_N.numpy()
    x_PCTV = batch.original_PCTV.numpy()
    out_PCTV = np.empty_like(x_PCTV)
    combined_view(
        *(x_PCTV, sample_P, ids_N),
        seed=seed,
        epoch=copy,
        view=0,
        crop_view=1,
        config=config,
        skeleton=skeleton,
        out_PCTV=out_PCTV,
        cropped_PCTV=np.empty_like(x_PCTV) if config.crop > 0 else None,
    )
    return torch.from_numpy(out_PCTV)


def _in_order(
    feed: Feed, fill: Callable[[int, _Slot], Batch], steps: range, ring: list[_Slot], threads: int
) -> Generator[Batch, None, None]:
    """Fill one slot for every step, in threads, and yield the batches in the order of the steps.

    A slot is filled again only after the batch in it has been yielded and the next one asked for: it is the
    oldest, and the ring has one slot more than there are batches underway while the consumer works.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cpstn-loader")
    try:
        with feed:
            underway: deque[Future[Batch]] = deque()
            for step, slot in zip(steps, cycle(ring), strict=False):
                underway.append(pool.submit(fill, step, slot))
                if len(underway) == len(ring):
                    yield underway.popleft().result()
            while underway:
                yield underway.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batch(samples: Samples, buffer_PCTV: torch.Tensor) -> Batch:
    """All the samples as one batch without views; its bodies, the first of a buffer, are still to be read."""
    num_samples = len(samples)
    sample_P = np.repeat(np.arange(num_samples, dtype=np.int64), samples.num_bodies_N)
    original_PCTV = buffer_PCTV[: len(sample_P)]
    return Batch(
        original_PCTV=original_PCTV,
        views=(),
        sample_P=torch.from_numpy(sample_P),
        ids_N=torch.from_numpy(samples.rows_N),
        labels_N=torch.from_numpy(samples.labels_N),
        performances_N=torch.from_numpy(samples.performances_N),
        num_samples=num_samples,
    )


def _read(samples: Samples, buffer_PCTV: torch.Tensor) -> Batch:
    """`_batch`, with its bodies."""
    source = samples.source
    if isinstance(source, TarShards):
        raise ValueError("samples in tars are read in an order of their own; load them by in_any_order first")
    batch = _batch(samples, buffer_PCTV)
    source.read_bodies(samples.rows_N, samples.num_bodies_N, batch.original_PCTV.numpy())
    return batch


def _of_other_recordings(view: View, shown: Batch) -> View:
    """The view, in a batch whose own recordings are others than those that it shows."""
    return replace(view, target_PCTV=shown.target_of(view), sample_P=shown.sample_P)


def _bodies_buffer(samples: Samples, capacity: int, pin_memory: bool) -> torch.Tensor:
    _, _, coordinates, frames, joints = samples.source.shape
    return torch.empty((capacity, coordinates, frames, joints), dtype=torch.float32, pin_memory=pin_memory)
