"""One training run on several processes that torchrun started: who shares what, and how.

Every process ("rank") works on its own part of each batch and computes its own part of the loss; the loss is
the sum of these parts. What couples the samples of a batch is shared with its gradient: the views that the
contrast compares, and the statistics of batch normalisation (`model.batch_norm`). The gradients of the
weights are summed in one go after the backward pass, not by DistributedDataParallel: the model is small, is
encoded in several calls and, with `accumulate`, more than once a step.

Axes: N sample or another first axis.
"""

import importlib
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.stop import Stopped

# For how long a rank waits for another before it gives up. torchrun ends the others sooner when one fails.
PATIENCE = timedelta(minutes=10)
# ... where the first one does for all what takes it long.
LONG_PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of the `world` that train together. With a world of 1 nothing is sent."""

    rank: int = 0
    world: int = 1
    patient: Callable[[], Any] = lambda: None  # the group of all ranks in which one waits up to LONG_PATIENCE

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def describe(self, device: torch.device) -> str:
        """Where training runs, for people."""
        return str(device) if self.world == 1 else f"{device.type}, {self.world} processes"

    def gather(self, x_N: Tensor) -> Tensor:
        """The rows of all ranks, in their order, with gradients; each rank has equally many."""
        if self.world == 1:
            return x_N
        before, after = self.rank * len(x_N), (self.world - 1 - self.rank) * len(x_N)
        rest = x_N.shape[1:]
        return self.sum(torch.cat([x_N.new_zeros(before, *rest), x_N, x_N.new_zeros(after, *rest)]))

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, with gradients."""
        if self.world == 1:
            return x
        summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
        return summed

    def sum_gradients(self, module: nn.Module) -> None:
        """Give every weight the sum of its gradients over all ranks. In place."""
        if self.world == 1:
            return
        gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def first_says(self, make: Callable[[], str]) -> str:
        """What `make` gives on the first rank; it is called there alone."""
        said = [make() if self.is_first else ""]
        if self.world > 1:
            dist.broadcast_object_list(said, src=0)
        return said[0]

    def wait_for_first(self) -> None:
        """Nobody goes on before the first rank has come here, which may take it hours."""
        if self.world > 1:
            dist.barrier(group=self.patient())


ALONE = Ranks()


class _Sum(torch.autograd.Function):
    """Sum over ranks. What every rank's loss asks of the sum, it asks of each term."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes of this run: NCCL between GPUs, gloo between CPUs; alone without torchrun.

    Raises ValueError if the environment is not torchrun's, or if other devices than these are asked for.
    """
    world = _number("WORLD_SIZE", "1")
    if world == 1:
        yield ALONE
        return
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device}; {world} processes train together on cpu or cuda only")
    rank = _number("RANK")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Nothing may hold a group for longer than this block: its threads would go on while Python shuts down,
    # and abort a process that has done all it should. This module, first imported later (by an optimiser,
    # say), would hold the group of all as the default of its functions.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank, world, weakref.ref(dist.new_group(backend="gloo", timeout=LONG_PATIENCE)))
    except Stopped:  # as all have agreed
        dist.destroy_process_group()
        raise
    # Not after an error: the others may be waiting for what this process will not send, and it for them.
    dist.destroy_process_group()


def device_of_rank(device: torch.device) -> torch.device:
    """The GPU of this process (LOCAL_RANK) where torchrun started several and "cuda" names none of them.

    Raises ValueError if there are fewer GPUs than processes, or if several would share the named one.
    """
    if device.type != "cuda" or _number("WORLD_SIZE", "1") == 1:
        return device
    if str(device) != "cuda":
        here = _number("LOCAL_WORLD_SIZE", "1")
        if here > 1:
            raise ValueError(
                f"device is {device} for all {here} processes of this machine; say cuda: each takes a GPU of "
                f"its own"
            )
        return device
    local, gpus = _number("LOCAL_RANK", "0"), torch.cuda.device_count()
    if local >= gpus:
        raise ValueError(
            f"process {local} of this machine has no GPU of its own: there are {gpus}; start torchrun with "
            f"--nproc-per-node={gpus}, or use --device cpu"
        )
    return torch.device("cuda", local)


def check_share(batch_size: int, world: int) -> None:
    """Raises ValueError if `world` processes cannot share a batch equally."""
    if batch_size % world:
        fitting = max(1, batch_size // world) * world
        raise ValueError(
            f"batch_size is {batch_size}, which {world} processes cannot share equally; "
            f"set batch_size={fitting}, or start another number of processes"
        )


def _number(name: str, default: str | None = None) -> int:
    """A number from torchrun's environment."""
    text = os.environ.get(name, default)
    if text is None or not text.isdigit() or (name == "WORLD_SIZE" and int(text) < 1):
        world = os.environ.get("WORLD_SIZE")
        beside = f", but {name} is {text or 'missing'}" if name != "WORLD_SIZE" else ""
        raise ValueError(
            f"WORLD_SIZE is {world}{beside}: start several processes with torchrun, or unset WORLD_SIZE for "
            "one"
        )
    return int(text)
