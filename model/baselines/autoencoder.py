"""A plain LSTM autoencoder, in LongT GAN's place.

LongT GAN (Zheng et al., "Unsupervised Representation Learning with Long-Term Dynamics for Skeleton Based
Action Recognition", AAAI 2018) rebuilds sequences with holes from a recurrent encoder's last state, and
trains the decoder against a discriminator. Here there is no discriminator and there are no holes: a trained
decoder rebuilds the whole sequence from the encoder's last state, which it is told in every frame.

Axes: P packed present body, C channel of the features, T frame, V joint, F coordinate of a joint (3 * V).
"""

from torch import Tensor, nn

from model.baselines.from_state import FromState
from model.baselines.reconstruction import bodies_of, squared_error
from model.cpstn import CPSTN
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.recurrent import run_layers


class Autoencoder(FromState):
    """The mean squared error, square metres, of what a trained LSTM rebuilds."""

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        decoder = FreeDecoder(model.encoder.out_channels, 3 * model.skeleton.num_joints)
        super().__init__(model, decoder, recipe, ranks)

    def error(self, rebuilt_PCTV: Tensor, original_PCTV: Tensor, count: Tensor | int) -> Tensor:
        """As `squared_error`."""
        return squared_error(rebuilt_PCTV, original_PCTV, count)


class FreeDecoder(nn.Module):
    """An LSTM as wide as the encoder's state, all of it trained."""

    def __init__(self, state_size: int, num_coordinates: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(state_size, state_size, batch_first=True)
        self.read = nn.Linear(state_size, num_coordinates)

    def forward(self, state_PC: Tensor, x_PCTV: Tensor) -> Tensor:
        """(P, C), and the original for its length alone -> rebuilt (P, 3, T, V)."""
        told_PTC = state_PC.unsqueeze(1).expand(-1, x_PCTV.shape[2], -1)
        return bodies_of(self.read(run_layers(self.cell, told_PTC)))
