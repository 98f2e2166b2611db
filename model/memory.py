"""Out of memory: which setting to change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from model.baselines.settings import MS2L
from model.cpstn import ST_GCN, STATISTICS
from model.recipe import Recipe

# torch has an exception of its own for what its CUDA allocator was asked for only.
MESSAGES = (
    "DefaultCPUAllocator",
    "not enough memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",  # of pinned memory of the host
    "CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


@contextmanager
def memory_explained(recipe: Recipe, frames: int, device: torch.device) -> Iterator[None]:
    """Turns torch's ways to say "out of memory" into a RuntimeError that says what helps."""
    parts = f"in {recipe.accumulate} parts" if recipe.accumulate > 1 else "at once"
    sizes: dict[str, Any] = {"model.encoder.widths": list(recipe.model.encoder.widths)}
    if recipe.model.backbone == STATISTICS:
        sizes = {"model.statistics.hidden": recipe.model.statistics.hidden}
    elif recipe.model.backbone != ST_GCN:
        sizes = {"model.recurrent.hidden": recipe.model.recurrent.hidden}
    if recipe.pretexts:
        sizes["model.decoder.widths"] = list(recipe.model.decoder.widths)
    in_parts = "" if recipe.objective == MS2L else f"set accumulate={2 * recipe.accumulate}, or "
    doing = ", ".join(
        [
            f"batches of {recipe.batch_size} samples of {frames} frames",
            f"worked on {parts}",
            *(f"{key} = {value}" for key, value in sizes.items()),
        ]
    )
    with _told(
        f"{device}: {doing}",
        f"{in_parts}lower batch_size, {', '.join(sizes)} or, for new shards, preprocess --frames",
    ):
        yield


@contextmanager
def evaluation_memory_explained(device: torch.device, costly: str = "") -> Iterator[None]:
    """The same where an encoder is only asked, and nothing of the run can be made smaller. costly: options
    that were given and take memory, for people."""
    helps = "end what else runs here" if device.type == "cpu" else "try --device cpu"
    with _told(str(device), f"{helps}, or leave out {costly}" if costly else helps):
        yield


@contextmanager
def _told(where: str, helps: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RuntimeError(f"out of memory on {where} ({_first_line(error)}); {helps}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python says so, in any of their ways."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in MESSAGES)


def _first_line(error: BaseException) -> str:
    """What was asked for, without the place in torch's sources."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rpartition("DefaultCPUAllocator: ")[2].rstrip(".")
