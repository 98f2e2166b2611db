"""How much memory a piece of work takes, measured in a process of its own."""

import gc
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# What clear_refs takes for "begin the peak anew", proc(5).
BEGIN_PEAK = "5"


def peak_megabytes(
    prepare: Callable[[], Callable[[], object]], device: torch.device, *, apart: bool = True
) -> float:
    """MB that two runs of a work take at most, beyond what the program and the prepared work hold.

    Two runs: in the first, an optimiser makes its state.  prepare: makes the work; must survive pickling.
    apart: in a new process. In one that worked before, memory that is free in it again hides what is taken.
    Raises OSError off Linux, which alone keeps these figures.
    """
    measure = partial(_on_gpu, device=device) if device.type == "cuda" else _on_cpu
    if not apart:
        return measure(prepare)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, prepare).result()


def _on_cpu(prepare: Callable[[], Callable[[], object]]) -> float:
    work = prepare()
    gc.collect()
    CLEAR.write_text(BEGIN_PEAK)
    before = _status_megabytes("VmRSS")
    for _ in range(2):
        work()
    return _status_megabytes("VmHWM") - before


def _on_gpu(prepare: Callable[[], Callable[[], object]], device: torch.device) -> float:
    work = prepare()
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for _ in range(2):
        work()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _status_megabytes(key: str) -> float:
    """A line of the process's status."""
    found = re.search(rf"^{key}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
