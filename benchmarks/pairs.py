"""Two ways to do the same work, timed in turn in one run.

A machine that others use too is now fast, now slow. What is measured side by side is slowed down alike: the
ratio is taken pair by pair, in the order A B B A, and its median and middle half are told.

Axes: R round.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clock:
    """What is counted: `now` in seconds, from any origin."""

    name: str
    now: Callable[[], float]


# Of the whole process: zarr, webdataset and BLAS work in threads of their own, which a thread's clock misses.
CPU = Clock("CPU", time.process_time)
WALL = Clock("wall", time.perf_counter)


def nothing() -> None:
    """What there is to prepare before most work."""


@dataclass(frozen=True)
class Work:
    """What is timed.  units: how many (files, samples) one `run` does.  before: prepares a run, not timed."""

    run: Callable[[], object]
    units: float
    before: Callable[[], object] = nothing

    def seconds(self, clock: Clock) -> float:
        """What one run takes."""
        return self.seconds_by([clock])[0]

    def seconds_by(self, clocks: Sequence[Clock]) -> list[float]:
        """What one and the same run takes by each of these clocks."""
        self.before()
        starts = [clock.now() for clock in clocks]
        self.run()
        return [clock.now() - start for clock, start in zip(clocks, starts, strict=True)]


@dataclass(frozen=True)
class Pair:
    """Ours and what it is compared with.  unit: what the units of both are, in the plural."""

    name: str
    unit: str
    ours: Work
    reference: Work


@dataclass(frozen=True)
class Comparison:
    """How much faster ours was: above 1, ours is faster.

    ours_R, reference_R: float64, units per second in every round.
    """

    name: str
    unit: str
    clock: str
    ours_R: NDArray[np.float64]
    reference_R: NDArray[np.float64]

    def __post_init__(self) -> None:
        assert self.ours_R.shape == self.reference_R.shape
        assert len(self.ours_R) >= 1

    @property
    def ratio(self) -> float:
        """The median over the pairs."""
        return float(np.median(self.ours_R / self.reference_R))

    @property
    def middle_half(self) -> tuple[float, float]:
        """The quartiles of the ratio over the pairs."""
        low, high = np.quantile(self.ours_R / self.reference_R, [0.25, 0.75])
        return float(low), float(high)

    @property
    def of_the_best(self) -> float:
        """Our best round over the reference's best: what an undisturbed machine would come to."""
        return float(self.ours_R.max() / self.reference_R.max())

    @property
    def ours(self) -> float:
        """Units per second, the median."""
        return float(np.median(self.ours_R))

    @property
    def reference(self) -> float:
        """Units per second, the median."""
        return float(np.median(self.reference_R))


def compare(pairs: Sequence[Pair], rounds: int, *clocks: Clock, warm_up: bool = True) -> list[Comparison]:
    """Time all pairs once in every round; ours comes first in even rounds, second in odd ones.

    clocks: each run is timed by all of them; if they are several, their names end those of the comparisons.
    warm_up: run each once before, uncounted, for just-in-time compilation, page cache and first-touched
    memory. Without, the caller has seen to that.
    """
    assert rounds >= 1
    if warm_up:
        for pair in pairs:
            pair.ours.seconds_by(clocks)
            pair.reference.seconds_by(clocks)
    rates = np.empty((len(pairs), rounds, 2, len(clocks)))
    for turn in range(rounds):
        for index, pair in enumerate(pairs):
            both = (pair.ours, pair.reference)
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                rates[index, turn, side] = both[side].units / np.array(both[side].seconds_by(clocks))
    return [
        Comparison(
            pair.name if len(clocks) == 1 else f"{pair.name}, {clock.name}",
            pair.unit,
            clock.name,
            rates[index, :, 0, by],
            rates[index, :, 1, by],
        )
        for index, pair in enumerate(pairs)
        for by, clock in enumerate(clocks)
    ]
