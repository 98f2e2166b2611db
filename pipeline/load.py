"""Samples of tars, all in memory, to be read in any order: evaluation's way, where `stream` is training's.

Axes: N sample, M body, P packed present body, C channel, T frame, V joint.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.store.tar_shard import TarShards

LOADING_THREADS = 4


class LoadedBodies:
    """Samples in memory, present bodies only, to be read in any order. `load_bodies` makes it.

    shape: (N, M, C, T, V) of the tars that they come from.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], bodies: dict[int, NDArray[np.float32]]) -> None:
        self.shape = shape
        self._bodies = bodies

    def read_bodies(
        self, rows_N: NDArray[np.int64], num_bodies_N: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        """Copy the samples of these rows, packed. float32 metres."""
        rows = zip(rows_N.tolist(), num_bodies_N.tolist(), strict=True)
        np.concatenate([self._bodies[row][:count] for row, count in rows], out=out_PCTV)


def load_bodies(
    source: TarShards, rows_N: NDArray[np.int64], num_bodies_N: NDArray[np.int64]
) -> LoadedBodies:
    """These rows of the tars, each tar read once. Errors as `TarShards.read_shard`.

    Memory: 4 * C * T * V bytes for every body, 60 kB for NTU's 200 frames.
    """
    wanted: dict[int, dict[int, int]] = {}
    for row, count in sorted(zip(rows_N.tolist(), num_bodies_N.tolist(), strict=True)):
        wanted.setdefault(row // source.shard_samples, {})[row] = count
    location = source.location.reopened()
    pool = ThreadPoolExecutor(LOADING_THREADS, thread_name_prefix="cpstn-load")
    try:
        parts = pool.map(lambda shard: list(source.read_shard(shard, wanted[shard], location)), wanted)
        return LoadedBodies(source.shape, dict(sample for part in parts for sample in part))
    finally:
        location.close()
        pool.shutdown(wait=True, cancel_futures=True)
