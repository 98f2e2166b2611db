"""What the baselines have in common as objectives of the training loop: a step, part by part.

Axes: P packed present body, C channel, T frame, V joint, L loss.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from model.cpstn import CPSTN
from model.device import mixed_precision
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.share import Share
from pipeline.batch import Batch


class Baseline(nn.Module, ABC):
    """A method beside CP-STN: its losses on the features of the same model's encoder.

    head: all that is trained or remembered beside the model; it is part of a checkpoint.
    loss_names: of what `losses` gives; the last is "total", which is minimised.
    """

    loss_names: tuple[str, ...]

    def __init__(self, model: CPSTN, head: nn.Module, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.recipe = recipe
        self.ranks = ranks

    def backward(self, share: Share, step: int) -> Tensor:
        """Add the batch's gradients to those of the weights. The losses, detached: this rank's share of them,
        in the order of `loss_names`."""
        count, done = self.count(share.parts), []
        for batch in share.parts:
            losses_L = self.losses(batch, step, count)
            losses_L[-1].backward()
            done.append(losses_L.detach())
        return torch.stack(done).sum(dim=0)

    @abstractmethod
    def count(self, parts: list[Batch]) -> Tensor | int:
        """What the sum over a batch is divided by: a number of the whole batch, on all ranks."""

    @abstractmethod
    def losses(self, batch: Batch, step: int, count: Tensor | int) -> Tensor:
        """A part's share of the losses (L,), float32, with gradients: those of all parts add up to the whole
        batch's."""

    def encode(self, x_PCTV: Tensor) -> Tensor:
        """Coordinates (P, 3, T, V) -> features q (P, C, T, 1), in the recipe's precision."""
        with mixed_precision(self.recipe.precision, x_PCTV.device):
            return self.model.encode(x_PCTV)

    def count_samples(self, parts: list[Batch]) -> int:
        """The samples of the whole batch: each rank has equally many."""
        return self.ranks.world * sum(batch.num_samples for batch in parts)
