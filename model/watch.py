"""What each step came to, read one step late on a GPU, so that neither it nor the host waits for the other.

Axis: L number of a step: its losses, then the wishes of all ranks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """A finished step, counted from 1.

    ids_N: rows of this rank's samples.  losses: by name, of the whole batch on all ranks.  stop, save:
    whether a rank asked for it; all ranks read the same at the same step, and so act together.
    """

    step: int
    ids_N: Tensor
    losses: dict[str, float]
    stop: bool
    save: bool


@dataclass(frozen=True)
class _Pending:
    step: int
    ids_N: Tensor
    values_L: Tensor
    copied: torch.cuda.Event | None


class Watch:
    """Numbers on their way from the device. late: hand a step's numbers out when the next one is underway."""

    def __init__(self, loss_names: tuple[str, ...], *, late: bool) -> None:
        self.loss_names = loss_names
        self.late = late
        self._pending: _Pending | None = None

    def add(self, step: int, ids_N: Tensor, values_L: Tensor) -> list[Outcome]:
        """values_L: the losses in their order, then how many ranks want to stop and to save. Returns what is
        known now: this step or, where late, the one before it, if any."""
        if not self.late:
            return [self._outcome(_Pending(step, ids_N, values_L, None))]
        known = self.settle()
        copied = None
        if values_L.is_cuda:
            stream = torch.cuda.current_stream(values_L.device)
            host_L = torch.empty(values_L.shape, dtype=values_L.dtype, pin_memory=True)
            values_L = host_L.copy_(values_L, non_blocking=True)
            copied = stream.record_event()
        self._pending = _Pending(step, ids_N, values_L, copied)
        return known

    def settle(self) -> list[Outcome]:
        """The step that is still to be told, if any; waits for it."""
        pending, self._pending = self._pending, None
        return [] if pending is None else [self._outcome(pending)]

    def _outcome(self, pending: _Pending) -> Outcome:
        if pending.copied is not None:
            pending.copied.synchronize()
        *losses, stop, save = pending.values_L.tolist()
        named = dict(zip(self.loss_names, losses, strict=True))
        return Outcome(pending.step, pending.ids_N, named, stop=stop > 0, save=save > 0)
