"""A plain LSTM autoencoder, in LongT GAN's place.

LongT GAN (Zheng et al., "Unsupervised Representation Learning with Long-Term Dynamics for Skeleton Based
Action Recognition", AAAI 2018) rebuilds sequences with holes from a recurrent encoder's last state, and
trains the decoder against a discriminator. Here there is no discriminator and there are no holes: a trained
decoder rebuilds the whole sequence from the encoder's last state, which it is told in every frame.

Axes: P packed present body, C channel of the features, T frame, V joint, F coordinate of a joint (3 * V).
"""

from torch import Tensor, nn

from model.baselines.baseline import Baseline
from model.baselines.reconstruction import bodies_of, count_seen, squared_error
from model.cpstn import CPSTN
from model.objective import mixed_precision
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.recurrent import run_layers
from pipeline.loader import Batch


class Autoencoder(Baseline):
    """Rebuilds recordings as they are stored; there are no views."""

    loss_names = ("reconstruction", "total")

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        head = FreeDecoder(model.encoder.out_channels, 3 * len(model.parents))
        super().__init__(model, head, recipe, ranks)

    def count(self, parts: list[Batch]) -> Tensor:
        """The coordinates in seen frames of the whole batch."""
        return count_seen([batch.original_PCTV for batch in parts], self.ranks)

    def losses(self, batch: Batch, step: int, count: Tensor | int) -> Tensor:  # noqa: ARG002
        """The mean squared error, square metres, and once more as the total."""
        x_PCTV = batch.original_PCTV
        q_PCTV = self.encode(x_PCTV)
        with mixed_precision(self.recipe.precision, x_PCTV.device):
            rebuilt_PCTV = self.head(self.model.final_state(q_PCTV), x_PCTV.shape[2])
        return squared_error(rebuilt_PCTV, x_PCTV, count).repeat(2)


class FreeDecoder(nn.Module):
    """An LSTM as wide as the encoder's state, all of it trained."""

    def __init__(self, state_size: int, num_coordinates: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(state_size, state_size, batch_first=True)
        self.read = nn.Linear(state_size, num_coordinates)

    def forward(self, state_PC: Tensor, num_frames: int) -> Tensor:
        """(P, C) -> rebuilt (P, 3, num_frames, V)."""
        told_PTC = state_PC.unsqueeze(1).expand(-1, num_frames, -1)
        return bodies_of(self.read(run_layers(self.cell, told_PTC)))
