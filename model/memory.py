"""Out of memory: which setting to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model.recipe import Recipe

# torch has an exception of its own for GPUs only.
CPU_MESSAGES = ("DefaultCPUAllocator", "not enough memory")


@contextmanager
def memory_explained(recipe: Recipe, frames: int, device: torch.device) -> Iterator[None]:
    """Turns torch's ways to say "out of memory" into a RuntimeError that says what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        parts = f"in {recipe.accumulate} parts" if recipe.accumulate > 1 else "at once"
        raise RuntimeError(
            f"out of memory on {device}: batches of {recipe.batch_size} samples of {frames} frames, worked "
            f"on {parts}, widths {list(recipe.model.encoder.widths)} ({_first_line(error)}); set "
            f"accumulate={2 * recipe.accumulate}, or lower batch_size, model.encoder.widths or, for new "
            f"shards, preprocess --frames"
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in CPU_MESSAGES)


def _first_line(error: BaseException) -> str:
    """What was asked for, without the place in torch's sources."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rpartition("DefaultCPUAllocator: ")[2].rstrip(".")
