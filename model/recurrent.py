"""Recurrent encoders: the sequence-based rows of the paper's Table 5, and those of the baselines.

Axes: P present body, C channel, T frame, V joint, H hidden unit. As in `model.stgcn`, only bodies that are
there enter, one behind the other along P; each is a sequence of its own.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from data_specs.skeleton import Skeleton
from model.batch_norm import FrameNorm
from model.checks import MOST_LAYERS, check_above_zero, check_at_most
from model.device import full_precision

RECURRENT = ("rnn", "lstm", "gru", "bilstm", "bigru")


@dataclass(frozen=True)
class RecurrentConfig:
    """A recurrent encoder; the paper gives neither width nor depth.

    hidden: units of a layer, in each of its directions.  layers: how many lie one on the other.
    Raises ValueError that names the key.
    """

    hidden: int = 256
    layers: int = 1

    def __post_init__(self) -> None:
        check_above_zero(self, "hidden", "layers")
        check_at_most("layers", self.layers, MOST_LAYERS)


class RecurrentEncoder(nn.Module):
    """All the joint positions in each frame to a feature vector (4.3.1), and these vectors through time.

    kind: "rnn", "lstm" and "gru" run forward, "bilstm" and "bigru" both ways. Frames keep their features, as
    those of `model.stgcn.STGCN` do, but joints no longer have any of their own: V is 1 in what comes out.
    """

    def __init__(self, skeleton: Skeleton, kind: str, config: RecurrentConfig, in_channels: int = 3) -> None:
        super().__init__()
        num_inputs = in_channels * skeleton.num_joints
        # Each coordinate of each joint has its own mean and spread, as for the graph-based encoders.
        self.input_norm = FrameNorm(num_inputs)
        self.layers: nn.RNNBase = _layers(kind, num_inputs, config)
        # The last ones: what has read the sequence from its end.
        self.backward_channels = config.hidden if self.layers.bidirectional else 0
        self.out_channels = config.hidden + self.backward_channels

    def forward(self, x_PCTV: Tensor) -> Tensor:
        """float (P, C_in, T, V) -> features q (P, out_channels, T, 1). A body's absent frame is 0 0 0."""
        bodies, channels, frames, joints = x_PCTV.shape
        flat = self.input_norm(x_PCTV.transpose(1, 2).reshape(bodies * frames, channels * joints))
        hidden_PTH = run_layers(self.layers, flat.view(bodies, frames, channels * joints))
        return hidden_PTH.transpose(1, 2).unsqueeze(3)


def run_layers(layers: nn.RNNBase, x_PTC: Tensor, first_PH: Tensor | None = None) -> Tensor:
    """float (P, T, C) -> the last layer's states (P, T, H), from a first state, of one layer, or zeros.

    As precise as the weights are: some CPUs have no LSTM in bfloat16, and cuDNN's would take float16, in
    which a seventh of the gradients are 0.
    """
    dtype = next(layers.parameters()).dtype
    first_LPH = None if first_PH is None else first_PH.to(dtype).unsqueeze(0)
    with full_precision(x_PTC.device):
        states_PTH: Tensor = layers(x_PTC.to(dtype), first_LPH)[0]
    return states_PTH


def _layers(kind: str, num_inputs: int, config: RecurrentConfig) -> nn.RNNBase:
    assert kind in RECURRENT
    if kind == "rnn":
        return nn.RNN(num_inputs, config.hidden, config.layers, batch_first=True)
    cell = nn.LSTM if kind.endswith("lstm") else nn.GRU
    both_ways = kind.startswith("bi")
    return cell(num_inputs, config.hidden, config.layers, batch_first=True, bidirectional=both_ways)
