"""How fast do shards become batches with views, beside a per-sample feeder in a DataLoader?

`python -m benchmarks.feed`

Axes: N sample, M body slot, C coordinate, T frame, V joint.
"""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from benchmarks.command import benchmark
from benchmarks.data import find_recordings, mixed_shards, scratch_folder
from benchmarks.pairs import CPU, WALL, Pair, Work, compare
from benchmarks.references import feeder, numpy_views
from benchmarks.report import Report
from benchmarks.threads import machine_itself
from pipeline.augment import ViewConfig
from pipeline.batch import Batch
from pipeline.loader import train_batches
from pipeline.order import steps_per_epoch
from pipeline.samples import Samples, split_samples
from pipeline.store.zarr_shard import ZarrShards

SAMPLES, SHARD_SAMPLES, BATCH = 2048, 512, 64
# So that starting threads and touching new buffers counts as little as it does in training.
EPOCHS = 4
BATCHES_OF_FEEDER = 4  # about a second
CONFIG = ViewConfig(jitter_probability=numpy_views.JITTER_PROBABILITY, jitter_std=numpy_views.JITTER_STD)
BARS = {"per-sample feeder": 60.0, "two loader threads": 1.6}


@benchmark("How fast do shards become batches with views, beside a per-sample feeder?", rounds=9)
def main(raw: Path | None, rounds: int, quick: bool) -> None:
    torch.set_num_threads(1)  # the feeder's collate would use all cores for copies
    with scratch_folder() as scratch, ThreadPoolExecutor(2) as pool:
        recordings = find_recordings(raw, scratch, quick=quick)
        count, shard_samples = (64, 40) if quick else (SAMPLES, SHARD_SAMPLES)
        shards = mixed_shards(recordings, scratch, count, shard_samples)
        samples = split_samples(shards, "xsub", "train")
        data = feeder.Feeder(
            write_dense(shards.array, samples.rows_N, scratch / "dense.npy"), samples.labels_N.tolist()
        )
        from_tars = replace(samples, source=shards.tars)
        for source in (samples, from_tars):
            check(source, data)
        report = Report(
            "feed", f"{len(samples):,} samples from {recordings.origin}, checksums compared", BARS
        )
        pairs = against_feeder(samples, from_tars, feeder.loader(data, BATCH))
        report.ratio(*compare(pairs, rounds, CPU))
        by_wall = replace(pairs[0], name=f"{pairs[0].name}, wall clock")
        report.ratio(*compare([by_wall], rounds, WALL, warm_up=False))
        threads = [
            Pair("two loader threads", "samples", epochs(samples, threads=2), epochs(samples, threads=1)),
            Pair("tars: two loader threads", "samples", epochs(from_tars, 2), epochs(from_tars, 1)),
        ]
        report.ratio(*compare([*threads, *machine_itself(pool)], 2 * rounds, WALL))
        report.show()


def against_feeder(samples: Samples, from_tars: Samples, loader: "DataLoader[feeder.Item]") -> list[Pair]:
    """One thread of ours, from zarr shards and from tars, beside the feeder."""
    feeding = Work(partial(first_batches, loader), min(BATCHES_OF_FEEDER, len(loader)) * BATCH)
    return [
        Pair("per-sample feeder", "samples", epochs(samples, threads=1), feeding),
        Pair("tars: per-sample feeder", "samples", epochs(from_tars, threads=1), feeding),
    ]


def epochs(samples: Samples, threads: int) -> Work:
    """Some epochs of ours."""
    return Work(partial(drain, samples, threads), EPOCHS * steps_per_epoch(len(samples), BATCH) * BATCH)


def batches(samples: Samples, threads: int, epochs: int) -> Generator[Batch, None, None]:
    """Ours, as training asks for them."""
    return train_batches(
        samples,
        batch_size=BATCH,
        seed=0,
        start_step=0,
        end_step=epochs * steps_per_epoch(len(samples), BATCH),
        views=("spatial", "temporal"),
        config=CONFIG,
        threads=threads,
    )


def drain(samples: Samples, threads: int) -> None:
    """Some epochs of ours."""
    for _ in batches(samples, threads, EPOCHS):
        pass


def first_batches(loader: "DataLoader[feeder.Item]") -> None:
    """Some batches of the reference, after a new shuffle."""
    for _ in islice(loader, BATCHES_OF_FEEDER):
        pass


def write_dense(shards: ZarrShards, rows_N: NDArray[np.int64], path: Path) -> Path:
    """The samples as feeders want them: one array (N, C, T, V, M), zeros where a body is absent."""
    np.save(path, np.stack([shards.read(row).transpose(1, 2, 3, 0) for row in rows_N.tolist()]))
    return path


def check(samples: Samples, data: feeder.Feeder) -> None:
    """Raises ValueError unless both give every sample of a batch, and as many samples an epoch."""
    position = {row: index for index, row in enumerate(samples.rows_N.tolist())}
    num_bodies = dict(zip(samples.rows_N.tolist(), samples.num_bodies_N.tolist(), strict=True))
    found = 0
    for batch in batches(samples, 1, epochs=1):
        found += batch.num_samples
        rows = batch.ids_N.tolist()
        dense = [data.data_NCTVM[position[row], ..., body] for row in rows for body in range(num_bodies[row])]
        if not np.array_equal(batch.original_PCTV.numpy(), np.stack(dense)):
            raise ValueError("the feeder's array holds other values than the shards: nothing to compare")
    expected = len(feeder.loader(data, BATCH)) * BATCH
    if found != expected:
        raise ValueError(f"an epoch of ours has {found} samples, one of the feeder {expected}")


if __name__ == "__main__":
    main()
