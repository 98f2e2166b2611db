"""How fast are shuffled batches read, beside zarr-python, webdataset and np.memmap?

`python -m benchmarks.read`. All lies in the page cache: what is timed is the way from there into a batch.

Axes: N sample, P packed present body, M body slot, C coordinate, T frame, V joint.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
import zarr
from numpy.typing import NDArray

from benchmarks.command import benchmark
from benchmarks.data import dense, find_recordings, mixed_samples, scratch_folder
from benchmarks.pairs import CPU, Pair, Work, compare
from benchmarks.report import Report
from pipeline.store.tar_shard import tar_name, write_tar
from pipeline.store.zarr_shard import METADATA_FILE, ZarrShards, array_metadata, shard_path, write_shard

SAMPLES, SHARD_SAMPLES, BATCH = 2048, 512, 64
BARS = {"zarr-python oindex": 100, "webdataset": 10, "np.memmap": 1.0, "verified: np.memmap": 0.7}
SHUFFLE_BUFFER = 1000
ZARR_PYTHON_BATCHES = 2  # it needs a tenth of a second for one


@benchmark("How fast are shuffled batches of 64 read, beside what else reads them?", rounds=9)
def main(raw: Path | None, rounds: int, quick: bool) -> None:
    with scratch_folder() as scratch:
        recordings = find_recordings(raw, scratch, quick=quick)
        count, shard_samples = (128, 40) if quick else (SAMPLES, SHARD_SAMPLES)
        stored = store(scratch, mixed_samples(recordings, count), shard_samples)
        check(stored)
        report = Report("read", f"{count:,} samples from {recordings.origin}, warm page cache", BARS)
        measured = compare(comparisons(stored), rounds, CPU)
        report.ratio(*measured)
        megabytes = stored.packed_PCTV.nbytes / count / 1e6
        report.figure("a sample as we move it, absent bodies left out", megabytes, "MB")
        report.figure("a sample as the dense readers move it", stored.dense_NMCTV.nbytes / count / 1e6, "MB")
        report.figure("moved by read_bodies", measured[0].ours * megabytes / 1e3, "GB/s of CPU")
        report.figure("moved by read_bodies, verified", measured[-1].ours * megabytes / 1e3, "GB/s of CPU")
        report.show()


@dataclass(frozen=True, eq=False)
class Stored:
    """The same samples in every form.

    shards, verified: ours, without and with crc32c compared.  array: our files opened by zarr-python.
    tars: one a shard.  dense_NMCTV, packed_PCTV: np.memmaps; the second without the absent bodies.
    """

    num_bodies_N: NDArray[np.int64]
    shards: ZarrShards
    verified: ZarrShards
    array: Any
    tars: list[str]
    dense_NMCTV: NDArray[np.float32]
    packed_PCTV: NDArray[np.float32]

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """The rows of every batch of an epoch, in a new order every time."""
        order_N = np.random.default_rng().permutation(len(self.num_bodies_N))
        for start in range(0, len(order_N) - BATCH + 1, BATCH):
            yield order_N[start : start + BATCH]

    def packed_rows(self, rows_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the bodies of these samples lie in packed_PCTV."""
        counts_N = self.num_bodies_N[rows_N]
        first_N = (np.cumsum(self.num_bodies_N) - self.num_bodies_N)[rows_N]
        rows_P: NDArray[np.int64] = np.arange(counts_N.sum()) + np.repeat(
            first_N - np.cumsum(counts_N) + counts_N, counts_N
        )
        return rows_P


def store(folder: Path, samples: Sequence[NDArray[np.float32]], shard_samples: int) -> Stored:
    """Write the samples in every form."""
    whole_NMCTV = dense(samples)
    ours = folder / "skeletons.zarr"
    tars = []
    for shard, start in enumerate(range(0, len(samples), shard_samples)):
        part = range(start, min(start + shard_samples, len(samples)))
        path = ours / shard_path(shard)
        path.parent.mkdir(parents=True)
        write_shard(path, ((row - start, samples[row]) for row in part), 2, shard_samples)
        tars.append(str(folder / tar_name(shard)))
        write_tar(Path(tars[-1]), ((f"{row:06d}", whole_NMCTV[row], {"row": row}) for row in part))
    (ours / METADATA_FILE).write_bytes(array_metadata(whole_NMCTV.shape, shard_samples, {}))
    np.save(folder / "dense.npy", whole_NMCTV)
    np.save(folder / "packed.npy", np.concatenate(samples))
    return Stored(
        np.array([len(sample) for sample in samples], np.int64),
        ZarrShards(ours, verify=False),
        ZarrShards(ours, verify=True),
        zarr.open_array(ours, mode="r"),
        tars,
        np.load(folder / "dense.npy", mmap_mode="r"),
        np.load(folder / "packed.npy", mmap_mode="r"),
    )


def comparisons(stored: Stored) -> list[Pair]:
    """What is timed: read_bodies unverified, then verified, against everything.

    All that can read into a given buffer does: into the same one, batch after batch.
    """
    samples = len(stored.num_bodies_N) // BATCH * BATCH
    out_NMCTV = np.zeros((BATCH, *stored.dense_NMCTV.shape[1:]), np.float32)
    out_PCTV = out_NMCTV.reshape(-1, *stored.packed_PCTV.shape[1:])
    every = Work(partial(read_ours, stored, stored.shards, out_PCTV), samples)
    every_verified = Work(partial(read_ours, stored, stored.verified, out_PCTV), samples)
    slow = Work(partial(read_oindex, stored), ZARR_PYTHON_BATCHES * BATCH)
    stream = Work(partial(read_webdataset, stored), len(stored.num_bodies_N))
    mapped = Work(partial(read_memmap, stored, out_NMCTV), samples)
    mapped_packed = Work(partial(read_packed_memmap, stored, out_PCTV), samples)
    references = {
        "zarr-python oindex": slow,
        "webdataset": stream,
        "np.memmap": mapped,
        "np.memmap, packed": mapped_packed,
    }
    plain = [Pair(name, "samples", every, work) for name, work in references.items()]
    checked = [
        Pair(f"verified: {name}", "samples", every_verified, work) for name, work in references.items()
    ]
    return plain + checked


def read_ours(stored: Stored, shards: ZarrShards, out_PCTV: NDArray[np.float32]) -> None:
    """An epoch of ours."""
    for rows_N in stored.batches():
        read_batch(stored, shards, rows_N, out_PCTV)


def read_batch(
    stored: Stored, shards: ZarrShards, rows_N: NDArray[np.int64], out_PCTV: NDArray[np.float32]
) -> NDArray[np.float32]:
    """One batch, packed, in the first bodies of a buffer."""
    num_bodies_N = stored.num_bodies_N[rows_N]
    batch_PCTV = out_PCTV[: num_bodies_N.sum()]
    shards.read_bodies(rows_N, num_bodies_N, batch_PCTV)
    return batch_PCTV


def read_oindex(stored: Stored) -> None:
    """The first batches of an epoch by zarr-python."""
    for rows_N, _ in zip(stored.batches(), range(ZARR_PYTHON_BATCHES), strict=False):
        stored.array.oindex[rows_N]


def read_webdataset(stored: Stored) -> None:
    """An epoch of webdataset, in batches."""
    for _ in stream_webdataset(stored.tars).to_tuple("npy").batched(BATCH):
        pass


def stream_webdataset(tars: list[str]) -> Any:
    """Its samples as a user gets them: tars in a random order, and a shuffle buffer."""
    return webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(SHUFFLE_BUFFER).decode()


def read_memmap(stored: Stored, out_NMCTV: NDArray[np.float32]) -> None:
    """An epoch by fancy indexing of the dense array. Unless it may clip, `take` copies everything twice."""
    for rows_N in stored.batches():
        np.take(stored.dense_NMCTV, rows_N, axis=0, out=out_NMCTV, mode="clip")


def read_packed_memmap(stored: Stored, out_PCTV: NDArray[np.float32]) -> None:
    """The same of an array of present bodies only: as many bytes as ours."""
    for rows_N in stored.batches():
        rows_P = stored.packed_rows(rows_N)
        np.take(stored.packed_PCTV, rows_P, axis=0, out=out_PCTV[: len(rows_P)], mode="clip")


def check(stored: Stored) -> None:
    """Raises ValueError unless all of them read the same values."""
    rows_N = next(stored.batches())
    out_PCTV = np.empty((2 * BATCH, *stored.shards.shape_CTV), np.float32)
    expected_NMCTV = stored.dense_NMCTV[rows_N]
    present_NM = np.arange(expected_NMCTV.shape[1]) < stored.num_bodies_N[rows_N, np.newaxis]
    expected_PCTV = expected_NMCTV[present_NM]
    found = {
        "read_bodies": (read_batch(stored, stored.shards, rows_N, out_PCTV).copy(), expected_PCTV),
        "verified": (read_batch(stored, stored.verified, rows_N, out_PCTV).copy(), expected_PCTV),
        "packed memmap": (stored.packed_PCTV[stored.packed_rows(rows_N)], expected_PCTV),
        "oindex": (stored.array.oindex[rows_N], expected_NMCTV),
    }
    for name, (values, expected) in found.items():
        if not np.array_equal(values, expected):
            raise ValueError(f"{name} reads other values than np.memmap: nothing to compare")
    streamed = 0
    for sample in stream_webdataset(stored.tars):
        streamed += 1
        if not np.array_equal(sample["npy"], stored.dense_NMCTV[sample["json"]["row"]]):
            raise ValueError("webdataset reads other values than np.memmap: nothing to compare")
    if streamed != len(stored.num_bodies_N):
        raise ValueError(f"webdataset reads {streamed} samples of {len(stored.num_bodies_N)}")


if __name__ == "__main__":
    main()
