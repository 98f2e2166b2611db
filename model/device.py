"""Which device computes, and what has to be set for it."""

import ctypes
import platform

import torch
from torch import Tensor

# Of mallopt(3): freed blocks above the first, and free memory at the heap's end above the second, go back to
# the system at once.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGEST_KEPT, MOST_KEPT = 2**30, 2**31 - 1
KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str | None) -> torch.device:
    """The named device, or the best there is: cuda, mps, cpu. Raises ValueError if it is another kind, or
    cannot be used."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            raise RuntimeError
        # "cuda" alone opens no GPU here: each of torchrun's processes is to open its own.
        if device != torch.device("cuda"):
            torch.zeros(1, device=device)
        elif not torch.cuda.is_available():
            raise RuntimeError
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device {name!r} cannot be used here; expected {_usable()}") from None
    return device


def _usable() -> str:
    """The devices of this machine, for people."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["cpu", *(["mps"] if torch.backends.mps.is_available() else []), *(["cuda"] if gpus else [])]
    *others, last = names + [f"cuda:{number}" for number in range(gpus)]
    return f"{', '.join(others)} or {last}" if others else last


def sent(x: Tensor, device: torch.device) -> Tensor:
    """The same on a device. Copies to CUDA may be still under way; elsewhere `x` might be gone by then."""
    return x.to(device, non_blocking=device.type == "cuda")


def off_mps(x: Tensor) -> Tensor:
    """The same on the CPU instead of MPS, which has no float64 and not every operation."""
    return x.cpu() if x.device.type == "mps" else x


def float64(x: Tensor) -> Tensor:
    """The same in float64, where that is."""
    return off_mps(x).to(torch.float64)


def reuse_freed_memory(device: torch.device) -> None:
    """On a CPU, keep freed memory for the next step, as torch does by itself on a GPU; for the whole process.

    glibc gives blocks above 32 MB back at once, and gets them again page by page, each zeroed: about a tenth
    of a step's CPU time at 64 samples. Changes nothing where the C library is another one.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    # Alone, the second would lower the first for good; an old glibc refuses the first.
    if library.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT):
        library.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def mixed_precision(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 for what gains by it where the recipe says so; weights and losses stay in float32. What has to
    be more precise in there turns it off by `full_precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def full_precision(device: torch.device) -> torch.autocast:
    """No bfloat16 within."""
    return torch.autocast(device.type, enabled=False)
