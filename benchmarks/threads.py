"""What two threads bring, beside what two threads bring to anything on this machine.

A virtual core is often half a physical one, and someone else may be using the other half.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from benchmarks.pairs import Pair, Work

Halves = tuple[Callable[[], object], Callable[[], object]]

_STEPS = 20_000_000
_COPY_FLOATS = 4 << 20  # 16 MiB, more than a core's own caches


def two_threads(name: str, unit: str, pool: ThreadPoolExecutor, halves: Halves, units: float) -> Pair:
    """Both halves at once in two threads of a running pool, against one after the other in one of them."""

    def together() -> None:
        for future in [pool.submit(half) for half in halves]:
            future.result()

    def in_turn() -> None:
        for half in halves:
            pool.submit(half).result()

    return Pair(name, unit, Work(together, units), Work(in_turn, units))


def machine_itself(pool: ThreadPoolExecutor) -> list[Pair]:
    """The same for plain arithmetic in registers and for memcpy: what two threads bring at best."""

    def spin() -> None:
        _spin(_STEPS)

    def copier() -> Callable[[], None]:
        source, target = np.ones(_COPY_FLOATS, np.float32), np.ones(_COPY_FLOATS, np.float32)

        def copy() -> None:
            for _ in range(4):
                np.copyto(target, source)

        return copy

    return [
        two_threads("the machine: arithmetic", "runs", pool, (spin, spin), 2),
        two_threads("the machine: memcpy", "runs", pool, (copier(), copier()), 2),
    ]


@njit(cache=True, nogil=True)
def _spin(steps: int) -> int:
    """Four chains that do not wait for each other, to fill a core's arithmetic units."""
    a = b = c = d = np.uint64(1)
    for step in range(steps):
        a = (a ^ (a >> np.uint64(3))) + np.uint64(step)
        b = (b ^ (b >> np.uint64(5))) + np.uint64(step)
        c = (c ^ (c >> np.uint64(7))) + np.uint64(step)
        d = (d ^ (d >> np.uint64(9))) + np.uint64(step)
    return int(a + b + c + d)
