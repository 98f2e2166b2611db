"""How fast is a shard written, beside zarr-python? `python -m benchmarks.write`

Axes: N sample, B present body, M body slot, C coordinate, T frame, V joint.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from benchmarks.command import benchmark
from benchmarks.data import dense, find_recordings, mixed_samples, scratch_folder
from benchmarks.pairs import CPU, WALL, Pair, Work, compare
from benchmarks.report import Report
from pipeline.store.publish import sync
from pipeline.store.zarr_shard import METADATA_FILE, array_metadata, shard_path, write_shard

SAMPLES = 512
BARS = {"zarr-python": 5}


@benchmark("How fast is a shard of 512 samples written, beside zarr-python?", rounds=9)
def main(raw: Path | None, rounds: int, quick: bool) -> None:
    with scratch_folder() as scratch:
        recordings = find_recordings(raw, scratch, quick=quick)
        count = 16 if quick else SAMPLES
        samples = mixed_samples(recordings, count)
        whole_NMCTV = dense(samples)
        report = Report("write", f"a shard of {count} samples from {recordings.origin}", BARS)
        with_ours, with_zarr = scratch / "ours", scratch / "zarr-python"
        array = new_array(with_zarr, whole_NMCTV.shape)
        (with_ours / shard_path(0)).parent.mkdir(parents=True)
        (with_ours / METADATA_FILE).write_bytes(array_metadata(whole_NMCTV.shape, count, {}))
        ours = Work(partial(write_ours, with_ours, samples), count, partial(remove_shard, with_ours))
        reference = Work(
            partial(write_with_zarr, with_zarr, array, whole_NMCTV), count, partial(remove_shard, with_zarr)
        )
        check(ours, reference, with_ours, with_zarr, whole_NMCTV)
        for name, clock in (("zarr-python", CPU), ("zarr-python, by the wall clock", WALL)):
            report.ratio(*compare([Pair(name, "samples", ours, reference)], rounds, clock))
        size = (with_ours / shard_path(0)).stat().st_size / whole_NMCTV.nbytes
        bar = 0.62 if recordings.are_real else None
        report.figure("size of the shard", size, "of dense float32", at_most=bar)
        report.show()


def write_ours(folder: Path, samples: Sequence[NDArray[np.float32]]) -> None:
    """One shard with crc32c and fsync."""
    write_shard(folder / shard_path(0), enumerate(samples), 2, len(samples))


def new_array(folder: Path, shape_NMCTV: tuple[int, ...]) -> "zarr.Array[zarr.core.metadata.ArrayV3Metadata]":
    """zarr-python's array of our layout: one shard, an inner chunk for every body, crc32c in each."""
    return zarr.create_array(
        folder,
        shape=shape_NMCTV,
        shards=shape_NMCTV,
        chunks=(1, 1, *shape_NMCTV[2:]),
        dtype="float32",
        compressors=Crc32cCodec(),
        fill_value=0,
    )


def write_with_zarr(
    folder: Path,
    array: "zarr.Array[zarr.core.metadata.ArrayV3Metadata]",
    whole_NMCTV: NDArray[np.float32],
) -> None:
    """The same shard, with fsync."""
    array[:] = whole_NMCTV
    sync(folder / shard_path(0))


def remove_shard(folder: Path) -> None:
    """So that every round writes a new file."""
    (folder / shard_path(0)).unlink(missing_ok=True)


def check(
    ours: Work, reference: Work, with_ours: Path, with_zarr: Path, whole_NMCTV: NDArray[np.float32]
) -> None:
    """Raises ValueError unless zarr-python reads the same from both, and finds the same codecs and size."""
    arrays = []
    for work, folder in ((ours, with_ours), (reference, with_zarr)):
        work.before()
        work.run()
        arrays.append(zarr.open_array(folder, mode="r"))
        if not np.array_equal(arrays[-1][:], whole_NMCTV):
            raise ValueError(f"{folder.name}: zarr-python reads something else than was written")
    if arrays[0].metadata.codecs != arrays[1].metadata.codecs:  # type: ignore[union-attr]
        raise ValueError(f"the codecs differ: {arrays[0].metadata} and {arrays[1].metadata}")
    sizes = [(folder / shard_path(0)).stat().st_size for folder in (with_ours, with_zarr)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the shards have {sizes[0]} and {sizes[1]} bytes: not the same layout")


if __name__ == "__main__":
    main()
