"""Which sample comes next: a pure function of the seed and the global step.

Nothing here has state: a run that resumes at step k, on other hardware and with another number of readers,
meets the samples that it would have met. The shuffle comes from splitmix64 (Steele, Lea and Flood, 2014), not
from numpy's Generator, whose streams may change between versions.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the positions 0..num_samples-1: int64, each exactly once.

    The positions are sorted by a hash of (seed, epoch, position); equal hashes keep the positions' own order.
    """
    key = _mix64(np.array([seed % _WORD], dtype=np.uint64) + _GOLDEN)
    key = _mix64((key ^ np.uint64(epoch % _WORD)) + _GOLDEN)
    counters = np.arange(1, num_samples + 1, dtype=np.uint64)
    return np.argsort(_mix64(key + counters * _GOLDEN), kind="stable").astype(np.int64, copy=False)


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


# Two: readers work ahead, so that around the end of an epoch both permutations are in use.
@lru_cache(maxsize=2)
def _cached_permutation(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return epoch_permutation(num_samples, seed, epoch)


def _mix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection of the 64-bit words."""
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLY_2
    return z ^ (z >> np.uint64(31))
