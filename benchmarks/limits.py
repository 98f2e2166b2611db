"""What a machine can do at best, what a piece of work asks of it, and what takes the work's time.

The work is counted as torch runs it, operation by operation: each reads its inputs from memory and writes its
outputs there. Caches and fused operations may do better than that; nothing here says they cannot.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pairs import Clock

COPY_BYTES, MATRIX = {"cpu": 1 << 28, "cuda": 1 << 30}, {"cpu": 2048, "cuda": 8192}
REPEATS = 5
OPERATION_REPEATS = 3


@dataclass(frozen=True)
class Machine:
    """bandwidth: bytes per second, read and written, of a large copy.  peak: operations per second of a
    large matrix product; a multiplication and an addition are two."""

    bandwidth: float
    peak: float

    def or_better(self, other: "Machine") -> "Machine":
        """The better of two measurements: what was slower was disturbed."""
        return Machine(max(self.bandwidth, other.bandwidth), max(self.peak, other.peak))


@dataclass(frozen=True)
class Demand:
    """operations: of matrix products and convolutions.  moved: bytes that all operations read and write."""

    operations: float
    moved: float

    def least_seconds(self, machine: Machine) -> float:
        """The larger of bytes / bandwidth and operations / peak."""
        return max(self.moved / machine.bandwidth, self.operations / machine.peak)


def measure_machine(device: torch.device, dtype: torch.dtype, clock: Clock) -> Machine:
    """The best of some copies and of some matrix products in this type, with as many threads as torch has."""
    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    size = MATRIX[device.type]
    factor = torch.randn(size, size, device=device).to(dtype)
    bandwidth = 2 * source.nbytes / _fastest(lambda: target.copy_(source), clock)
    return Machine(bandwidth, 2 * size**3 / _fastest(lambda: factor @ factor, clock))


def measure_demand(work: Callable[[], object]) -> Demand:
    """What one run of the work asks for."""
    with FlopCounterMode(display=False) as operations, _Traffic() as traffic:
        work()
    return Demand(operations.get_total_flops(), traffic.moved)


def costliest(work: Callable[[], object], device: torch.device, count: int = 6) -> list[tuple[str, float]]:
    """The kinds of operation that take most time, and their share of all; on a GPU, its kernels."""
    times = _kernel_times(work) if device.type == "cuda" else _operation_times(work)
    whole = sum(times.values()) or 1
    return [(name, seconds / whole) for name, seconds in times.most_common(count)]


def _kernel_times(work: Callable[[], object]) -> Counter[str]:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
    # What the host called is there as well, with the time of the kernels that it started.
    kernels = [event for event in profile.key_averages() if event.device_type.name == "CUDA"]
    return Counter({event.key: event.self_device_time_total for event in kernels})


def _operation_times(work: Callable[[], object]) -> Counter[str]:
    """CPU seconds, of each single operation its fastest run: torch's profiler counts the time in which
    another process had the core."""
    runs = []
    for _ in range(OPERATION_REPEATS):
        with _Stopwatch() as stopwatch:
            work()
        runs.append(stopwatch.operations)
    times: Counter[str] = Counter()
    for same in zip(*runs, strict=True):
        times[same[0][0]] += min(seconds for _, seconds in same)
    return times


class _Stopwatch(TorchDispatchMode):
    """Notes the name of every operation and the CPU seconds it took."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[str, float]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        start = time.process_time()
        out = func(*args, **(kwargs or {}))
        self.operations.append((func.overloadpacket.__name__, time.process_time() - start))
        return out


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of what every operation reads and writes; a view moves nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = _tensors((args, kwargs)), _tensors(out)
        memory = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not func._schema.is_mutable and any(
            tensor.untyped_storage().data_ptr() in memory for tensor in written
        )
        if not is_view and "empty" not in func.__name__:
            self.moved += sum(map(_bytes, read)) + sum(map(_bytes, written))
        return out


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """What it occupies; an expanded tensor is read from less than it shows."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _fastest(work: Callable[[], object], clock: Clock) -> float:
    """Seconds of the fastest of some runs."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = clock.now()
        work()
        seconds.append(clock.now() - start)
    return min(seconds)
