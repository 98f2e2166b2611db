"""P&C-like: a sequence is rebuilt from the encoder's last state by a decoder that is kept weak.

After Su et al., "Predict & Cluster: Unsupervised Skeleton Based Action Recognition" (CVPR 2020). What the
decoder cannot do, the encoder's state has to hold. As there: a bidirectional GRU, whose last state is the
representation; fixed weights or fixed states; the mean absolute error over the frames that are there. Not as
there: one layer of 2 x 256 units where there are three of 2 x 1024, no view-invariant transform beyond that
of the shards, no gradient clipping, and no autoencoder between the state and the nearest neighbours.

Axes: P packed present body, C channel of the features, T frame, V joint, F coordinate of a joint (3 * V).
"""

import torch
from torch import Tensor, nn

from model.baselines.from_state import FromState
from model.baselines.reconstruction import absolute_error, bodies_of
from model.cpstn import CPSTN
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.recurrent import run_layers


class PCLike(FromState):
    """The mean absolute error, metres, of what a weak decoder rebuilds."""

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        decoder = FixedWeights if recipe.pc_like.weakened == "weights" else FixedStates
        super().__init__(
            model, decoder(model.encoder.out_channels, 3 * model.skeleton.num_joints), recipe, ranks
        )

    def error(self, rebuilt_PCTV: Tensor, original_PCTV: Tensor, count: Tensor | int) -> Tensor:
        """As `absolute_error`."""
        return absolute_error(rebuilt_PCTV, original_PCTV, count)


class FixedWeights(nn.Module):
    """A GRU that is never trained runs on from the encoder's state, without an input; what is read from its
    states is trained."""

    def __init__(self, state_size: int, num_coordinates: int) -> None:
        super().__init__()
        self.cell = nn.GRU(1, state_size, batch_first=True)
        _initialise_as_tensorflow(self.cell)
        self.cell.requires_grad_(False)
        self.read = nn.Linear(state_size, num_coordinates)

    def forward(self, state_PC: Tensor, x_PCTV: Tensor) -> Tensor:
        """(P, C), and the original for its shape alone -> rebuilt (P, 3, T, V)."""
        nothing = state_PC.new_zeros(len(x_PCTV), x_PCTV.shape[2], 1)
        return bodies_of(self.read(run_layers(self.cell, nothing, state_PC)))


class FixedStates(nn.Module):
    """A trained GRU cell whose state is the encoder's in every frame. It sees its own last output and says
    what to add to it; the first frame is given."""

    def __init__(self, state_size: int, num_coordinates: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(num_coordinates, state_size)
        self.read = nn.Linear(state_size, num_coordinates)

    def forward(self, state_PC: Tensor, x_PCTV: Tensor) -> Tensor:
        """(P, C), and the original for its first frame -> rebuilt (P, 3, T, V)."""
        now_PF = x_PCTV[:, :, 0].flatten(1)
        rebuilt = [now_PF]
        for _ in range(1, x_PCTV.shape[2]):
            now_PF = now_PF + self.read(self.cell(now_PF, state_PC))
            rebuilt.append(now_PF)
        return bodies_of(torch.stack(rebuilt, dim=1))


@torch.no_grad()
def _initialise_as_tensorflow(cell: nn.GRU) -> None:
    """As the authors' cell begins, and stays: torch's own smaller weights forget the state sooner."""
    for name, weight in cell.named_parameters():
        reset, update, candidate = weight.chunk(3)
        for gate in (reset, update, candidate):
            if name.startswith("weight"):
                nn.init.xavier_uniform_(gate)
            else:  # torch has two biases, of which one is enough
                gate.fill_(1.0 if name.startswith("bias_ih") and gate is not candidate else 0.0)
