"""Training from tars: from a folder or over HTTP, the batches are the same to the bit, or there is an error.

Axes: N sample, M body, P packed present body, C coordinate, T frame, V joint.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from pipeline import stream
from pipeline.augment import ViewConfig
from pipeline.batch import Batch
from pipeline.loader import train_batches
from pipeline.order import num_lanes, steps_per_epoch
from pipeline.samples import Samples, split_samples
from pipeline.store import web
from pipeline.store.damage import DamagedError
from pipeline.store.location import Location
from pipeline.store.shards import Shards, open_shards
from pipeline.store.tar_shard import TarShards
from pipeline.stream import READ_AHEAD_SAMPLES

ROOT = Path(__file__).parents[2]
BATCH, BUFFER = 16, 24


@pytest.fixture(autouse=True)
def _small_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RANGE_BYTES", 5_000)
    monkeypatch.setattr(web, "BACKOFF_SECONDS", 0.001)


def from_zarr(shards: Shards) -> Samples:
    return split_samples(shards, "xview", "train")


def from_tars(shards: Shards) -> Samples:
    return split_samples(as_webdataset(shards), "xview", "train")


def as_webdataset(shards: Shards) -> Shards:
    """The same shards, as if there were only tars."""
    return replace(shards, manifest=replace(shards.manifest, format="webdataset"))


def batches(samples: Samples, **options: Any) -> Generator[Batch, None, None]:
    defaults: dict[str, Any] = {
        "batch_size": BATCH,
        "seed": 5,
        "start_step": 0,
        "end_step": 2 * steps_per_epoch(len(samples), BATCH) + 1,
        "views": ("spatial", "temporal"),
        "config": ViewConfig(),
        "buffer": BUFFER,
    }
    return train_batches(samples, **(defaults | options))


def snapshot(batch: Batch) -> list[bytes]:
    views = [tensor for view in batch.views for tensor in (view.x_PCTV, view.visible_N)]
    tensors = [batch.original_PCTV, batch.sample_P, batch.ids_N, batch.labels_N, *views]
    return [tensor.numpy().tobytes() for tensor in tensors]


def snapshots(samples: Samples, **options: Any) -> list[list[bytes]]:
    return [snapshot(batch) for batch in batches(samples, **options)]


def ids(samples: Samples, **options: Any) -> list[list[int]]:
    return [batch.ids_N.tolist() for batch in batches(samples, **({"views": ()} | options))]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("cpstn-loader")]


def copied(shards: Shards, folder: Path) -> Path:
    """A copy of the shards that a test may damage, without the zarr array."""
    shutil.copytree(shards.folder, folder, ignore=shutil.ignore_patterns("skeletons.zarr"))
    return folder


def tar_of(samples: Samples, row: int) -> str:
    assert isinstance(samples.source, TarShards)
    return f"tar/shard-{row // samples.source.shard_samples:06d}.tar"


def test_the_test_has_lanes_to_test(both_shards: Shards) -> None:
    """With a single lane, most of what follows would test nothing."""
    samples = from_tars(both_shards)
    assert num_lanes(len(set(samples.rows_N // 3)), len(samples), BATCH) == 8


def test_batches_hold_what_the_zarr_array_holds(both_shards: Shards) -> None:
    """A sample under another's name or label would train on noise without any error."""
    zarr, tars = from_zarr(both_shards), from_tars(both_shards)
    label_of = dict(zip(zarr.rows_N.tolist(), zarr.labels_N.tolist(), strict=True))
    bodies_of = dict(zip(zarr.rows_N.tolist(), zarr.num_bodies_N.tolist(), strict=True))
    for batch in batches(tars, views=()):
        rows_N = batch.ids_N.numpy()
        num_bodies_N = np.array([bodies_of[row] for row in rows_N.tolist()])
        expected_PCTV = np.empty(batch.original_PCTV.shape, np.float32)
        both_shards.array.read_bodies(rows_N, num_bodies_N, expected_PCTV)
        assert_array_equal(batch.original_PCTV.numpy(), expected_PCTV)
        assert batch.labels_N.tolist() == [label_of[row] for row in rows_N.tolist()]
        assert_array_equal(batch.sample_P.numpy(), np.repeat(np.arange(BATCH), num_bodies_N))


def test_samples_in_any_order_are_the_same_batches(both_shards: Shards) -> None:
    """A chosen part whose rows do not increase would be trained on with the labels of other samples."""
    samples = from_tars(both_shards)
    backwards = samples.take(np.arange(len(samples))[::-1])
    assert snapshots(backwards) == snapshots(samples)


def test_an_epoch_gives_as_many_samples_as_from_zarr_each_once(both_shards: Shards) -> None:
    """An epoch that ends early, or repeats, would change every figure that is reported."""
    tars, zarr = ids(from_tars(both_shards)), ids(from_zarr(both_shards))
    assert [len(batch) for batch in tars] == [len(batch) for batch in zarr]
    steps = len(tars) // 2
    for epoch in (tars[:steps], tars[steps : 2 * steps]):
        given = [row for batch in epoch for row in batch]
        assert len(set(given)) == len(given) == steps * BATCH
        assert set(given) <= set(from_zarr(both_shards).rows_N.tolist())
    assert tars[:steps] != tars[steps : 2 * steps]


def test_another_seed_gives_another_order(both_shards: Shards) -> None:
    """Runs that are repeated with other seeds, to see how far they differ, would meet the same batches."""
    for samples in (from_tars(both_shards), from_zarr(both_shards)):
        assert ids(samples, seed=6, end_step=1) != ids(samples, seed=5, end_step=1)


def test_a_batch_is_read_ahead_however_large_it_is(
    both_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that waits for a batch to be taken before it may read the rest of it waits for ever."""
    options = {"batch_size": 32, "buffer": 1, "prefetch": 1, "end_step": 2}
    expected = ids(from_tars(both_shards), **options)
    monkeypatch.setattr(stream, "READ_AHEAD_SAMPLES", 1)
    assert ids(from_tars(both_shards), **options) == expected


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 40), st.data())
def test_threads_and_resume_change_no_bit(
    both_shards: Shards, threads: int, prefetch: int, buffer: int, data: st.DataObject
) -> None:
    """A run on a machine with more cores, or one that was interrupted, would be another run."""
    for samples in (from_tars(both_shards), from_zarr(both_shards)):
        whole = snapshots(samples, buffer=buffer, threads=1, prefetch=1)
        start = data.draw(st.integers(0, len(whole) - 1))
        again = snapshots(samples, buffer=buffer, threads=threads, prefetch=prefetch, start_step=start)
        assert again == whole[start:]


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([4, 8, 12, 16, 20, 200]), st.integers(0, 9), st.integers(1, 200))
def test_ranks_share_the_batches_of_one_reader(
    both_shards: Shards, batch_size: int, start: int, buffer: int
) -> None:
    """With overlapping ranks, training on two GPUs would see half of the data twice."""
    for samples in (from_tars(both_shards), from_zarr(both_shards)):
        options = {"batch_size": batch_size, "start_step": start, "end_step": start + 5, "buffer": buffer}
        alone = ids(samples, **options)
        for world in (2, 4):
            ranks = [ids(samples, rank=rank, world=world, **options) for rank in range(world)]
            parts = list(zip(*ranks, strict=True))
            assert all(len({len(part) for part in of_step}) == 1 for of_step in parts)
            together = [list(chain(*of_step)) for of_step in parts]
            if batch_size <= len(samples):
                assert together == alone
            else:  # less the remainder that cannot be shared
                assert together == [batch[: len(batch) - len(batch) % world] for batch in alone]


WORKER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from pipeline.augment import ViewConfig
from pipeline.loader import train_batches
from pipeline.samples import split_samples
from pipeline.store.shards import open_shards

shards, rank, world = open_shards(Path(sys.argv[1])), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
zarr, found = split_samples(shards, "xview", "train"), {}
for name, samples in (("zarr", zarr), ("tar", replace(zarr, source=shards.tars))):
    batches = train_batches(samples, batch_size=16, seed=5, start_step=3, end_step=11, views=(),
                            config=ViewConfig(), rank=rank, world=world, buffer=24)
    found[name] = [batch.ids_N.tolist() for batch in batches]
(Path(sys.argv[2]) / f"{world}-{rank}.json").write_text(json.dumps(found))
"""


def test_torchrun(both_shards: Shards, tmp_path: Path) -> None:
    """The promise as it is used: one process for each GPU, together the batches of this single one."""
    (tmp_path / "worker.py").write_text(WORKER)
    worlds = (2, 4)
    launched = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
            + [str(path) for path in (tmp_path / "worker.py", both_shards.folder, tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for world in worlds
    ]
    for process in launched:
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems
    for source, samples in (("zarr", from_zarr(both_shards)), ("tar", from_tars(both_shards))):
        expected = ids(samples, start_step=3, end_step=11)
        for world in worlds:
            files = [tmp_path / f"{world}-{rank}.json" for rank in range(world)]
            ranks = [json.loads(file.read_text())[source] for file in files]
            for rows, *parts in zip(expected, *ranks, strict=True):
                assert {len(part) for part in parts} == {BATCH // world}
                assert list(chain(*parts)) == rows
                assert len(set(rows)) == BATCH


def test_a_web_server_gives_the_same_bits(both_shards: Shards, serve: Callable[..., str]) -> None:
    """Where the data lie must not decide what is trained."""
    served = from_zarr(open_shards(serve(both_shards.folder)))
    assert isinstance(served.source, TarShards)
    assert snapshots(served) == snapshots(from_tars(both_shards))


def test_nginx_gives_the_same_bits(both_shards: Shards, nginx: str) -> None:
    """The same of the server that people have."""
    assert snapshots(from_zarr(open_shards(nginx))) == snapshots(from_tars(both_shards))


def test_hiccups_change_no_bit(both_shards: Shards, serve: Callable[..., str]) -> None:
    """A retry that loses or repeats a sample would be worse than one that fails."""
    faults = {"*": ["", "", "", "503", "drop", "", "drop", "502", "whole", "", "503", "drop"]}
    served = from_zarr(open_shards(serve(both_shards.folder, faults)))
    assert snapshots(served) == snapshots(from_tars(both_shards))
    assert faults["*"] == []


def test_resume_opens_only_what_is_still_needed(both_shards: Shards, serve: Callable[..., str]) -> None:
    """A resume near the end of an epoch must not download the whole of it again."""
    log: list[str] = []
    served = from_zarr(open_shards(serve(both_shards.folder, log=log)))
    steps = steps_per_epoch(len(served), BATCH)
    opened = {}
    for start in (0, steps - 1):
        log.clear()
        assert len(ids(served, start_step=start, end_step=steps, buffer=1)) == steps - start
        opened[start] = {line.split()[0] for line in log}
    assert len(opened[0]) == len(set((served.rows_N // 3).tolist()))
    assert len(opened[steps - 1]) <= 16  # of 40: one or two in each of 8 lanes


def cut(content: bytes) -> bytes:
    """Cut at a member's boundary, with an end mark: to tar, a whole and sound file."""
    at = content.index(b".json", 3 * 512) // 512 * 512
    return content[:at] + bytes(1024)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"found the end where samples\.csv expects a\d\d_.*\.json"),
        (lambda content: content[: len(content) // 2], r"cut short or damaged at byte \d+|bytes, crc32"),
        (lambda content: content[:-512], r"\d+ bytes, crc32 .* were written"),
        (lambda content: content + bytes(512), r"\d+ bytes, crc32 .* were written"),
        (lambda content: content[:700] + b"\1" + content[701:], r"\d+ bytes, crc32 .* were written"),
        (lambda _: b"", r"cut short or damaged at byte 0"),
    ],
    ids=["cut at a member", "cut in half", "cut in the end mark", "longer", "another value", "empty"],
)
@pytest.mark.parametrize("over_http", [False, True], ids=["folder", "http"])
def test_a_damaged_tar_is_an_error(
    both_shards: Shards,
    tmp_path: Path,
    serve: Callable[..., str],
    damage: Callable[[bytes], bytes],
    message: str,
    over_http: bool,
) -> None:
    """Never a short epoch: what is missing, or is not what was written, ends the training."""
    folder = copied(both_shards, tmp_path / "copy")
    samples = from_tars(open_shards(serve(folder) if over_http else folder))
    expected = ids(from_tars(both_shards))
    steps = len(expected) // 2
    name = tar_of(samples, expected[steps - 1][0])
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    found: list[list[int]] = []
    with pytest.raises(DamagedError, match=message) as caught:
        found.extend(batch.ids_N.tolist() for batch in batches(samples, views=()))
    assert name in str(caught.value)
    assert len(found) < steps
    assert found == expected[: len(found)]
    assert not loader_threads()


def test_a_missing_tar_is_an_error(both_shards: Shards, tmp_path: Path, serve: Callable[..., str]) -> None:
    """An incomplete copy, or upload, has whole files missing."""
    folder = copied(both_shards, tmp_path / "copy")
    name = tar_of(from_tars(both_shards), int(from_zarr(both_shards).rows_N[0]))
    (folder / name).unlink()
    for place, reason in ((folder, "No such file"), (serve(folder), "answers 404")):
        with pytest.raises(DamagedError, match=f"{name}: this shard is missing .*{reason}"):
            ids(from_tars(open_shards(place)))


def test_a_server_that_stays_ill_is_an_error(both_shards: Shards, serve: Callable[..., str]) -> None:
    """After the last retry, too, the epoch must not be short."""
    name = tar_of(from_tars(both_shards), int(from_zarr(both_shards).rows_N[0]))
    served = from_zarr(open_shards(serve(both_shards.folder, {name: ["drop", "always"]})))
    with pytest.raises(ConnectionError, match=f"{name}: cannot be read, 9 times in a row"):
        ids(served)
    assert not loader_threads()


class Stop(Exception):  # noqa: N818
    """Stands for Ctrl-C."""


@pytest.fixture
def stop_soon() -> Iterator[Callable[[], None]]:
    """Once called, raises Stop in the main thread after 0.4 seconds.

    Garbage may be collected just then, and Python swallows what a finalizer raises: it is let finish first.
    """

    def stop(_: int, frame: FrameType | None) -> None:
        callers = [caller.f_code for caller, _ in walk_stack(frame)]
        if any(code.co_name == "__del__" or code.co_filename == weakref.__file__ for code in callers):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
        else:
            raise Stop

    before = signal.signal(signal.SIGALRM, stop)

    def begin() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.4)

    yield begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("fault", ["stall", "later"])
def test_stopping_does_not_wait_for_the_server(
    both_shards: Shards, serve: Callable[..., str], stop_soon: Callable[[], None], fault: str
) -> None:
    """Ctrl-C in the middle of a request, or of the pause before the next, must end the program now."""
    name = tar_of(from_tars(both_shards), int(from_zarr(both_shards).rows_N[0]))
    samples = from_zarr(open_shards(serve(both_shards.folder, {name: [fault]})))
    started = time.perf_counter()
    stop_soon()
    with pytest.raises(Stop):
        ids(samples)
    assert time.perf_counter() - started < 10
    assert not loader_threads()


def test_stopping_while_readers_are_started_leaves_none(
    both_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before the first batch is even waited for."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("cpstn-loader-lane"):
            raise Stop

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Stop):
        ids(from_tars(both_shards))
    assert not loader_threads()


def test_closing_early_stops_the_threads(both_shards: Shards) -> None:
    """A notebook that runs ten experiments would be left with the threads of ten."""
    iterator = batches(from_tars(both_shards), end_step=10_000)
    assert not loader_threads()
    next(iterator)
    assert loader_threads()
    iterator.close()
    assert not loader_threads()
    assert ids(from_tars(both_shards))
    assert not loader_threads()


def test_the_interpreter_can_leave_in_the_middle(both_shards: Shards) -> None:
    """A script that ends, or dies, in the middle of an epoch must not hang on the readers."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from test_stream import batches, from_tars\n"
        "from pipeline.store.shards import open_shards\n"
        "iterator = batches(from_tars(open_shards(Path(sys.argv[1]))), end_step=10**9)\n"
        "next(iterator)\n"
        "raise SystemExit(3)\n"
    )
    left = subprocess.run(
        [sys.executable, "-c", script, both_shards.folder],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert (left.returncode, left.stderr) == (3, "")


class CountingTars(TarShards):
    """Counts the samples that are read."""

    def __init__(self, plain: TarShards) -> None:
        vars(self).update(vars(plain))
        self.read_rows: list[int] = []

    def read_shard(
        self, shard: int, num_bodies: Any, location: Location | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for row, bodies_BCTV in super().read_shard(shard, num_bodies, location):
            self.read_rows.append(row)
            yield row, bodies_BCTV


def test_readers_wait_for_the_consumer(both_shards: Shards) -> None:
    """Readers that run ahead without bound would fill the memory with the data set."""
    source = CountingTars(both_shards.tars)
    samples = replace(from_zarr(both_shards), source=source)
    iterator = batches(samples, end_step=10_000, prefetch=2, views=())
    taken = sum(batch.num_samples for batch in islice(iterator, 3))
    until = time.monotonic() + 30
    while len(source.read_rows) - taken <= len(samples):
        assert time.monotonic() < until, "they do not run ahead at all"
        time.sleep(0.01)
    time.sleep(0.3)  # for as far as they get
    ahead = len(source.read_rows) - taken
    iterator.close()
    lanes, in_hand, given_out = 8, 8, 3 * BATCH
    assert ahead <= BUFFER + lanes * READ_AHEAD_SAMPLES + in_hand + given_out


def test_one_sample_reads_like_zarr(both_shards: Shards) -> None:
    """`draw` shows the sample that was asked for, from whichever shards there are."""
    for row in (0, 1, 5, 119):
        assert_array_equal(both_shards.tars.read(row), both_shards.array.read(row))


def test_a_buffer_needs_room(both_shards: Shards) -> None:
    """The error must come from the call with the wrong setting."""
    with pytest.raises(ValueError, match="buffer is 0; expected at least 1"):
        batches(from_tars(both_shards), buffer=0)
