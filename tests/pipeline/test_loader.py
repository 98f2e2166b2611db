"""The loader: threads may change how fast batches come, never what they hold.

Axes: N sample, M body, P packed present body, C coordinate, T frame, V joint.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from data_specs.read import load_spec
from model.share import batch_on
from pipeline.augment import ViewConfig, spatial_view, temporal_view
from pipeline.batch import Batch
from pipeline.loader import sequential_batches, train_batches
from pipeline.order import batch_indices, epoch_permutation, partners
from pipeline.samples import Samples

N, M, C, T, V = 23, 2, 3, 7, 25
BATCH = 4
SKELETON = load_spec("ntu60").skeleton
STEPS = N // BATCH


class FakeSource:
    """Bodies in memory. Fails, if told to, at a row."""

    def __init__(self, bad_row: int = -1) -> None:
        self.x_NMCTV = np.random.default_rng(1).normal(0, 1, (N, M, C, T, V)).astype(np.float32)
        self.bad_row = bad_row

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return N, M, C, T, V

    def read_bodies(
        self, rows_N: NDArray[np.int64], num_bodies_N: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        if self.bad_row in rows_N:
            raise OSError(f"row {self.bad_row} is damaged")
        bodies = [self.x_NMCTV[row, :count] for row, count in zip(rows_N, num_bodies_N, strict=True)]
        out_PCTV[:] = np.concatenate(bodies)


def all_samples(source: FakeSource | None = None) -> Samples:
    """Every row of the source, from the last to the first; each third has two bodies."""
    rows_N = np.arange(N)[::-1].copy()
    return Samples(source or FakeSource(), rows_N, 1 + (rows_N % 3 == 0), rows_N % 10, rows_N // 3, SKELETON)


def batches(samples: Samples | None = None, **options: Any) -> Generator[Batch, None, None]:
    defaults: dict[str, Any] = {
        "batch_size": BATCH,
        "seed": 5,
        "start_step": 0,
        "end_step": 2 * STEPS + 1,
        "views": ("spatial", "temporal"),
        "config": ViewConfig(),
    }
    return train_batches(samples or all_samples(), **(defaults | options))


def snapshot(batch: Batch) -> list[bytes]:
    views = [tensor for view in batch.views for tensor in (view.x_PCTV, view.visible_N)]
    views += [view.target_PCTV for view in batch.views if view.target_PCTV is not None]
    views += [view.sample_P for view in batch.views if view.sample_P is not None]
    tensors = [batch.original_PCTV, batch.sample_P, batch.ids_N, batch.labels_N, *views]
    return [tensor.numpy().tobytes() for tensor in tensors]


def snapshots(**options: Any) -> list[list[bytes]]:
    return [snapshot(batch) for batch in batches(**options)]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("cpstn-loader")]


def test_a_batch_is_what_order_and_views_say() -> None:
    """Labels or views of the wrong sample would train on noise without any error."""
    source, step = FakeSource(), STEPS + 2
    samples = all_samples(source)
    (batch,) = batches(samples, start_step=step, end_step=step + 1)
    chosen = samples.take(batch_indices(step, N, BATCH, 5))
    sample_P = np.repeat(np.arange(BATCH), chosen.num_bodies_N)
    x_PCTV = np.empty((len(sample_P), C, T, V), np.float32)
    source.read_bodies(chosen.rows_N, chosen.num_bodies_N, x_PCTV)
    spatial_PCTV, temporal_PCTV = np.empty_like(x_PCTV), np.empty_like(x_PCTV)
    visible_N = np.empty(BATCH, np.int64)
    who: dict[str, Any] = {"seed": 5, "epoch": 1, "config": ViewConfig()}
    spatial_view(x_PCTV, sample_P, chosen.rows_N, view=0, skeleton=SKELETON, out_PCTV=spatial_PCTV, **who)
    temporal_view(x_PCTV, sample_P, chosen.rows_N, view=1, out_PCTV=temporal_PCTV, visible_N=visible_N, **who)

    assert batch.num_samples == BATCH
    assert_array_equal(batch.original_PCTV.numpy(), x_PCTV)
    assert_array_equal(batch.sample_P.numpy(), sample_P)
    assert_array_equal(batch.ids_N.numpy(), chosen.rows_N)
    assert_array_equal(batch.labels_N.numpy(), chosen.rows_N % 10)
    spatial, temporal = batch.views
    assert (spatial.kind, temporal.kind) == ("spatial", "temporal")
    assert_array_equal(spatial.x_PCTV.numpy(), spatial_PCTV)
    assert spatial.visible_N.tolist() == [T] * BATCH
    assert_array_equal(temporal.x_PCTV.numpy(), temporal_PCTV)
    assert_array_equal(temporal.visible_N.numpy(), visible_N)
    assert batch.original_PCTV.dtype == spatial.x_PCTV.dtype == torch.float32
    for tensor in (batch.sample_P, batch.ids_N, batch.labels_N, spatial.visible_N, temporal.visible_N):
        assert tensor.dtype == torch.int64


def test_a_view_can_be_changed_in_both_ways() -> None:
    """Cropped, not masked, and then changed like a spatial view of the crop; the two of them differently.

    Cropped alike in every epoch, an encoder would learn from one part of each recording alone.
    """
    samples, config = all_samples(), ViewConfig(crop=0.5, bones=0.2, mirror=0.5)
    steps = {"start_step": STEPS, "end_step": STEPS + 1}
    (batch,) = batches(samples, **steps, views=("combined", "combined"), config=config)
    x_PCTV, sample_P, ids_N = batch.original_PCTV.numpy(), batch.sample_P.numpy(), batch.ids_N.numpy()
    for index, view in enumerate(batch.views):
        cropped_PCTV, out_PCTV = np.empty_like(x_PCTV), np.empty_like(x_PCTV)
        who: dict[str, Any] = {"seed": 5, "epoch": 1, "config": config}
        hidden_N = np.empty(BATCH, np.int64)
        temporal_view(
            *(x_PCTV, sample_P, ids_N),
            view=2 + index,
            out_PCTV=out_PCTV,
            visible_N=hidden_N,
            cropped_PCTV=cropped_PCTV,
            **who,
        )
        spatial_view(cropped_PCTV, sample_P, ids_N, view=index, skeleton=SKELETON, out_PCTV=out_PCTV, **who)
        assert view.kind == "combined"
        assert_array_equal(view.x_PCTV.numpy(), out_PCTV)
        assert_array_equal(batch.target_of(view).numpy(), cropped_PCTV)
        assert view.visible_N.tolist() == [T] * BATCH
    first, second = batch.views
    assert not torch.equal(batch.target_of(first), batch.target_of(second))
    (uncropped,) = batches(samples, **steps, views=("combined", "combined"))
    assert_array_equal(uncropped.target_of(uncropped.views[0]).numpy(), x_PCTV)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 4), (2, 1), (8, 4), (8, 40)])
def test_threads_change_no_bit(threads: int, prefetch: int) -> None:
    """A run on a machine with more cores would be another run."""
    assert snapshots(threads=threads, prefetch=prefetch) == snapshots(threads=1, prefetch=1)


def test_resuming_gives_the_tail_of_the_whole_run() -> None:
    """A run that was interrupted would end with other weights than one that was not."""
    whole = snapshots()
    assert len(whole) == 2 * STEPS + 1
    for step in (1, STEPS, STEPS + 3):
        assert snapshots(start_step=step) == whole[step:]


def test_an_epoch_visits_every_sample_once_up_to_its_tail() -> None:
    """Doubled or lost samples would bias training silently; the dropped tail must change each epoch."""
    for epoch in range(2):
        start, end = epoch * STEPS, (epoch + 1) * STEPS
        visited = [batch.ids_N.numpy() for batch in batches(views=(), start_step=start, end_step=end)]
        permutation = epoch_permutation(N, 5, epoch)
        assert_array_equal(np.concatenate(visited), all_samples().rows_N[permutation[: STEPS * BATCH]])


def test_ranks_share_the_batches_of_one_reader() -> None:
    """With overlapping ranks, training on two GPUs would see half of the data twice."""
    alone = [batch.ids_N.tolist() for batch in batches(views=())]
    ranks = [[batch.ids_N.tolist() for batch in batches(views=(), rank=rank, world=2)] for rank in (0, 1)]
    assert alone == [first + second for first, second in zip(*ranks, strict=True)]


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    """Few-label training uses tiny sets: zero steps would leave the classifier untrained, in silence."""
    few = all_samples().take(np.arange(3))
    sizes = [batch.num_samples for batch in batches(few, batch_size=64, end_step=2)]
    assert sizes == [3, 3]


def test_a_batch_holds_until_the_next_is_asked_for() -> None:
    """A buffer that is filled again too early would change a batch under the encoder's hands."""
    for batch in batches(prefetch=1, threads=8, end_step=6):
        before = snapshot(batch)
        time.sleep(0.02)  # the threads fill every buffer that they take for free
        assert snapshot(batch) == before


def test_the_second_view_shows_another_camera() -> None:
    """A view of the wrong recording, or with the bodies of the first, would be pulled to a stranger."""
    source, step = FakeSource(), STEPS + 2
    samples = all_samples(source)
    (plain,) = batches(samples, start_step=step, end_step=step + 1)
    (batch,) = batches(samples, start_step=step, end_step=step + 1, positives="camera")
    assert torch.equal(batch.original_PCTV, plain.original_PCTV)
    assert torch.equal(batch.views[0].x_PCTV, plain.views[0].x_PCTV)
    positions = batch_indices(step, N, BATCH, 5)
    others = samples.take(partners(samples.performances_N).of(positions, 5, 1))
    assert (others.performances_N == batch.performances_N.numpy()).all()
    assert (others.rows_N != batch.ids_N.numpy()).sum() >= BATCH - 1  # the last performance has one recording
    assert others.num_bodies_N.tolist() != samples.take(positions).num_bodies_N.tolist()
    sample_P = np.repeat(np.arange(BATCH), others.num_bodies_N)
    x_PCTV = np.empty((len(sample_P), C, T, V), np.float32)
    source.read_bodies(others.rows_N, others.num_bodies_N, x_PCTV)
    temporal_PCTV, visible_N = np.empty_like(x_PCTV), np.empty(BATCH, np.int64)
    who: dict[str, Any] = {"seed": 5, "epoch": 1, "config": ViewConfig()}
    temporal_view(x_PCTV, sample_P, others.rows_N, view=1, out_PCTV=temporal_PCTV, visible_N=visible_N, **who)
    second = batch.views[1]
    assert_array_equal(second.x_PCTV.numpy(), temporal_PCTV)
    assert_array_equal(second.visible_N.numpy(), visible_N)
    assert_array_equal(batch.target_of(second).numpy(), x_PCTV)
    assert_array_equal(batch.bodies_of(second).numpy(), sample_P)


@pytest.mark.parametrize("config", [ViewConfig(), ViewConfig(crop=0.5)])
def test_threads_change_no_bit_of_another_camera(config: ViewConfig) -> None:
    """The other recordings are read by whichever thread works on the batch."""
    one = snapshots(threads=1, prefetch=1, positives="camera", config=config)
    assert one == snapshots(threads=4, prefetch=3, positives="camera", config=config)


def test_positives_that_cannot_be_are_refused() -> None:
    """Otherwise the contrast would quietly be that of one recording."""
    samples = all_samples()
    alone = replace(samples, performances_N=np.arange(N))
    with pytest.raises(
        ValueError, match=r"none of the .* training samples is known to show what another camera's shows"
    ):
        next(batches(alone, positives="camera"))
    with pytest.raises(ValueError, match="positives is 'friend'; expected one of recording, camera"):
        next(batches(samples, positives="friend"))


@pytest.mark.parametrize("positives", ["recording", "camera"])
def test_all_that_goes_to_a_gpu_is_pinned(monkeypatch: pytest.MonkeyPatch, positives: str) -> None:
    """From other memory a copy makes the step wait. Without a GPU none can be: noted is what would be."""
    pinned: list[torch.Tensor] = []
    empty = torch.empty

    def noting_empty(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        made: torch.Tensor = empty(*shape, **options)
        if pin_memory:
            pinned.append(made)
        return made

    def noting_copy(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() in places():
            return tensor
        assert not tensor.is_floating_point(), "bodies are large: they lie in pinned buffers already"
        pinned.append(tensor.clone())
        return pinned[-1]

    def places() -> set[int]:
        return {tensor.untyped_storage().data_ptr() for tensor in pinned}

    monkeypatch.setattr(torch, "empty", noting_empty)
    monkeypatch.setattr(torch.Tensor, "pin_memory", noting_copy)
    sent: list[torch.Tensor] = []

    def noting_to(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        sent.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", noting_to)
    options: dict[str, Any] = {"positives": positives, "config": ViewConfig(crop=0.5), "end_step": 3}
    for batch in batches(pin_memory=True, **options):
        batch_on(batch, torch.device("cuda"))
        assert {tensor.untyped_storage().data_ptr() for tensor in sent} <= places()
        assert len(sent) >= 9
        sent.clear()


def test_closing_early_stops_the_threads() -> None:
    """A notebook that runs ten experiments would be left with the threads of ten."""
    iterator = batches(threads=3, end_step=10_000)
    next(iterator)
    assert loader_threads()
    iterator.close()
    assert not loader_threads()


def test_an_exhausted_loader_leaves_no_threads() -> None:
    """The same after a training that went to its end."""
    assert snapshots()
    assert not loader_threads()


@pytest.mark.parametrize("threads", [1, 8])
def test_an_error_in_a_thread_reaches_the_consumer(threads: int) -> None:
    """A damaged shard must stop the training and say so; the batches before it still come."""
    bad_step = 3
    bad_row = int(all_samples().rows_N[batch_indices(bad_step, N, BATCH, 5)[1]])
    samples = all_samples(FakeSource(bad_row))
    iterator = batches(samples, threads=threads)
    assert [next(iterator).num_samples for _ in range(bad_step)] == [BATCH] * bad_step
    with pytest.raises(OSError, match=f"row {bad_row} is damaged"):
        next(iterator)
    assert not loader_threads()


def test_the_interpreter_can_leave_in_the_middle() -> None:
    """A script that ends, or dies, in the middle of an epoch must not hang on the loader's threads."""
    script = (
        "from test_loader import batches\n"
        "iterator = batches(threads=2, end_step=10**9)\n"
        "next(iterator)\n"
        "raise SystemExit(3)\n"
    )
    here = Path(__file__).parent
    left = subprocess.run(
        [sys.executable, "-c", script], cwd=here, timeout=60, capture_output=True, text=True
    )
    assert (left.returncode, left.stderr) == (3, "")


def test_sequential_batches_give_everything_once_in_order() -> None:
    """A lost last batch would leave test samples out of the accuracy."""
    source = FakeSource()
    samples = all_samples(source)
    parts = list(sequential_batches(samples, 5))
    assert [batch.num_samples for batch in parts] == [5, 5, 5, 5, 3]
    assert all(batch.views == () for batch in parts)
    assert_array_equal(np.concatenate([batch.ids_N for batch in parts]), samples.rows_N)
    assert_array_equal(np.concatenate([batch.labels_N for batch in parts]), samples.labels_N)
    expected = [
        source.x_NMCTV[row, :count] for row, count in zip(samples.rows_N, samples.num_bodies_N, strict=True)
    ]
    assert_array_equal(np.concatenate([batch.original_PCTV for batch in parts]), np.concatenate(expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": ("spatial", "spacial")}, "unknown view 'spacial'; expected one of spatial, temporal"),
        ({"threads": 0}, "threads is 0 and prefetch 4; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "world": 3}, "3 ranks cannot share equally"),
        ({"start_step": -1}, "step is -1"),
    ],
)
def test_impossible_settings_fail_at_once(options: dict[str, Any], message: str) -> None:
    """The error must come from the call with the wrong setting, not from the first batch."""
    with pytest.raises(ValueError, match=message):
        batches(**options)


def test_cropped_views_bring_what_they_were_cropped_to() -> None:
    """The temporal pretext would rebuild another part of the recording than the encoder saw the start of."""
    for batch in batches(config=ViewConfig(crop=0.4, bones=0.2), end_step=2):
        spatial, temporal = batch.views
        assert spatial.target_PCTV is None
        assert temporal.target_PCTV is not None
        assert temporal.target_PCTV.shape == batch.original_PCTV.shape
        for p, sample in enumerate(batch.sample_P.tolist()):
            seen = int(temporal.visible_N[sample])
            assert_array_equal(temporal.x_PCTV[p, :, :seen], temporal.target_PCTV[p, :, :seen])
    options = {"config": ViewConfig(crop=0.4, bones=0.2)}
    assert snapshots(threads=1, **options) == snapshots(threads=5, **options)
