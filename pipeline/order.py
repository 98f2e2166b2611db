"""Which sample comes next: a pure function of the seed and the global step.

Nothing here has state: a run that resumes at step k, on other hardware and with another number of readers,
meets the samples that it would have met. Samples that can be read at random are permuted; a stream of tars
passes shuffle buffers whose play is known before a byte is read. The shuffle comes from splitmix64 (Steele,
Lea and Flood, 2014), not from numpy's Generator, whose streams may change between versions.

Axes: N sample (of an epoch, or of a batch), S step, L lane.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MAX_LANES = 8
TARS_PER_LANE = 4

_WORD = 2**64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_PARTNER = 0x70617274  # sets the choice of partners apart from other hashes of a seed and an epoch


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the positions 0..num_samples-1: int64, each exactly once.

    The positions are sorted by a hash of (seed, epoch, position); equal hashes keep the positions' own order.
    """
    counters = np.arange(1, num_samples + 1, dtype=np.uint64)
    return np.argsort(_mix64(_key(seed, epoch) + counters * _GOLDEN), kind="stable").astype(
        np.int64, copy=False
    )


@dataclass(frozen=True, eq=False)
class Partners:
    """Who stands beside whom: to every sample another one of its group, in turn. `partners` makes it.

    All int64, (N,): the positions group by group; of each position its group's start and size in them, and
    its own place within the group.
    """

    by_group_N: NDArray[np.int64]
    start_N: NDArray[np.int64]
    size_N: NDArray[np.int64]
    place_N: NDArray[np.int64]

    def of(self, indices_N: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Each position's partner in this epoch, int64: any other of its group, all equally likely; itself
        where it is alone. Depends on the position, the seed and the epoch."""
        hashes_N = _mix64(_key(seed, epoch, _PARTNER) + indices_N.astype(np.uint64) * _GOLDEN)
        others_N = np.maximum(1, self.size_N[indices_N] - 1).astype(np.uint64)
        further_N = 1 + (hashes_N % others_N).astype(np.int64)
        place_N = (self.place_N[indices_N] + further_N) % self.size_N[indices_N]
        return self.by_group_N[self.start_N[indices_N] + place_N]


def partners(groups_N: NDArray[np.int64]) -> Partners:
    """groups_N: int64, a number for each position; equal ones are of one group."""
    by_group_N = np.argsort(groups_N, kind="stable")
    _, group_N, sizes_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    start_N = (np.cumsum(sizes_G) - sizes_G)[group_N]
    rank_N = np.empty_like(by_group_N)
    rank_N[by_group_N] = np.arange(len(groups_N))
    return Partners(by_group_N, start_N, sizes_G[group_N], rank_N - start_N)


def steps_per_epoch(num_samples: int, batch_size: int, drop_last: bool = True) -> int:
    """How many batches an epoch has; never none.

    With drop_last the samples that fill no whole batch are left out of this epoch (every epoch leaves out
    others), except that a set smaller than one batch is one batch. Without, the last batch is short.
    Raises ValueError if either number is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"there are {num_samples} samples; at least 1 is needed: is the split empty?")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if drop_last:
        return max(1, num_samples // batch_size)
    return -(-num_samples // batch_size)


def batch_indices(
    step: int, num_samples: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1
) -> NDArray[np.int64]:
    """The positions (int64, in 0..num_samples-1) that this rank reads at a global step, counted from 0.

    batch_size is that of all ranks together. Each rank gets an equal, disjoint part of the global batch, and
    the parts in the order of the ranks are the batch of a single reader. The last samples of the epoch's
    permutation that fill no whole batch are not visited. A set smaller than batch_size is one batch, less the
    remainder that cannot be shared equally between the ranks.

    Raises ValueError if the batch cannot be shared equally, if there are fewer samples than ranks, or if step
    or rank is out of range.
    """
    if step < 0:
        raise ValueError(f"step is {step}; expected 0 or more")
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank} of {world}; expected 0..{world - 1}")
    if batch_size % world:
        raise ValueError(f"batch_size is {batch_size}, which {world} ranks cannot share equally")
    epoch, step_in_epoch = divmod(step, steps_per_epoch(num_samples, batch_size))
    part = min(batch_size, num_samples) // world
    if part == 0:
        raise ValueError(f"there are {num_samples} samples for {world} ranks; each rank needs at least 1")
    first = step_in_epoch * batch_size + rank * part
    return _cached_permutation(num_samples, seed, epoch)[first : first + part].copy()


@dataclass(frozen=True, eq=False)
class StreamOrder:
    """One epoch over samples that lie in tars, which can only be read from their beginning.

    read_N: int64, all positions in the order in which they are read. It is cut into lanes, which are read
    beside each other: lane l is read_N[bounds_L[l] : bounds_L[l + 1]].
    given_SN: int64 (steps, samples of a batch), the places in read_N that make each batch; lane after lane,
    from each equally many.
    """

    read_N: NDArray[np.int64]
    bounds_L: NDArray[np.int64]
    given_SN: NDArray[np.int64]

    @property
    def lane_width(self) -> int:
        """How many samples of every batch come from one lane."""
        batch_size = int(self.given_SN.shape[1])
        return batch_size // (len(self.bounds_L) - 1)


def num_lanes(num_tars: int, num_samples: int, batch_size: int) -> int:
    """How many lanes an epoch is cut into: a power of two that divides the batch, at most MAX_LANES.

    A tar that two lanes share is read twice: a lane is at least TARS_PER_LANE tars long, so that this costs
    at most a quarter. A set smaller than a batch is one lane.
    """
    lanes = 1
    while (
        2 * lanes <= MAX_LANES
        and batch_size % (2 * lanes) == 0
        and num_tars >= 2 * lanes * TARS_PER_LANE
        and num_samples >= batch_size
    ):
        lanes *= 2
    return lanes


def stream_order(
    tars_N: NDArray[np.int64], batch_size: int, seed: int, epoch: int, buffer: int
) -> StreamOrder:
    """The order of an epoch whose samples lie in tars, before a byte is read.

    tars_N: int64, the tar of every position, non-decreasing: the positions of a tar in their order in it.
    buffer: samples in all the shuffle buffers together.
    The tars are permuted by a hash of (seed, epoch); their samples one after the other are the stream, which
    is cut into lanes that differ by one sample at most. Each lane passes a shuffle buffer, and every batch
    takes an equal part from each. No sample is given before it can be in its lane's buffer; a lane that the
    buffer holds in whole is shuffled in whole. As many samples are left out as by `batch_indices`, every
    epoch others.
    """
    num_samples = len(tars_N)
    steps = steps_per_epoch(num_samples, batch_size)
    starts = np.flatnonzero(np.diff(tars_N, prepend=-1))
    lanes = num_lanes(len(starts), num_samples, batch_size)
    by_tar = np.split(np.arange(num_samples, dtype=np.int64), starts[1:])
    read_N = np.concatenate([by_tar[tar] for tar in epoch_permutation(len(starts), seed, epoch)])
    bounds_L = np.arange(lanes + 1, dtype=np.int64) * num_samples // lanes
    width = min(batch_size, num_samples) // lanes
    given = [
        bounds_L[lane]
        + _shuffled_by_buffer(
            int(bounds_L[lane + 1] - bounds_L[lane]), max(1, buffer // lanes), _key(seed, epoch, lane)
        )[: steps * width].reshape(steps, width)
        for lane in range(lanes)
    ]
    return StreamOrder(read_N, bounds_L, np.concatenate(given, axis=1))


def _shuffled_by_buffer(length: int, size: int, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """0..length-1 in the order in which they leave a shuffle buffer of `size` places.

    While the stream lasts, the newcomer takes the place of a random one; then the rest leaves in random
    order. What leaves p-th came before the stream's position p + size.
    """
    hashes_N = _mix64(key + np.arange(1, length + 1, dtype=np.uint64) * _GOLDEN)
    left_N = np.minimum(size, np.arange(length, 0, -1)).astype(np.uint64)
    places = (hashes_N % left_N).tolist()
    held = list(range(min(size, length)))
    given = []
    for newcomer, place in enumerate(places, start=len(held)):
        given.append(held[place])
        if newcomer < length:
            held[place] = newcomer
        else:
            held[place] = held[-1]
            held.pop()
    return np.array(given, dtype=np.int64)


# Two: readers work ahead, so that around the end of an epoch both permutations are in use.
@lru_cache(maxsize=2)
def _cached_permutation(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return epoch_permutation(num_samples, seed, epoch)


def _key(seed: int, *identity: int) -> NDArray[np.uint64]:
    """Where the hashes of (seed, identity) begin: a different place for each."""
    key = _mix64(np.array([seed % _WORD], dtype=np.uint64) + _GOLDEN)
    for number in identity:
        key = _mix64((key ^ np.uint64(number % _WORD)) + _GOLDEN)
    return key


def _mix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection of the 64-bit words."""
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLY_2
    return z ^ (z >> np.uint64(31))
