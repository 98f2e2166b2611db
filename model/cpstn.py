"""CP-STN: one encoder, a projection for the contrast, and a decoder for each of the two pretexts.

Axes: N sample, P present body of the batch, C channel, T frame (t after the encoder's strides), V joint,
D size of the representation h, Z size of its projection z.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from data_specs.spec import Skeleton
from model.stgcn import STGCN, Decoder, DecoderConfig, EncoderConfig, initialise

POOLS = ("joints", "global")


@dataclass(frozen=True)
class ModelConfig:
    """What the network looks like; the encoder's graph serves the decoders, too.

    projection: widths of the two linear layers (3.2.1).  pool: "joints" averages the features over time and
    bodies and keeps the joints apart, "global" averages over joints, too.  split_channels: each decoder sees
    its own half of the channels (3.1; "half-C" in Table 5), or both see all.
    Raises ValueError that names the key.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    projection: tuple[int, ...] = (256, 128)
    pool: str = "joints"
    split_channels: bool = True

    def __post_init__(self) -> None:
        if len(self.projection) != 2 or min(self.projection) < 1:
            raise ValueError(f"projection: found {self.projection}, expected two positive numbers")
        if self.pool not in POOLS:
            raise ValueError(f"pool: found {self.pool!r}, expected one of {', '.join(POOLS)}")
        if self.split_channels and self.encoder.widths[-1] % 2:
            raise ValueError(
                f"encoder.widths: the last is {self.encoder.widths[-1]}, expected an even number, or "
                "split_channels = false"
            )


class CPSTN(nn.Module):
    """The framework of the paper's Figure 1. Every step is a method; the training loop puts them together."""

    def __init__(self, skeleton: Skeleton, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.num_joints = skeleton.num_joints
        self.encoder = STGCN(skeleton, config.encoder)
        hidden, out = config.projection
        self.projector = nn.Sequential(
            nn.Linear(self.representation_size, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out)
        )
        initialise(self.projector)
        share = self.encoder.out_channels // 2 if config.split_channels else self.encoder.out_channels
        self.spatial_decoder = Decoder(skeleton, config.decoder, share, graph=config.encoder.graph)
        self.temporal_decoder = Decoder(skeleton, config.decoder, share, graph=config.encoder.graph)
        self.share = share

    @property
    def representation_size(self) -> int:
        """D: channels x joints, or channels alone where `pool` is "global"."""
        channels = self.config.encoder.widths[-1]
        return channels * self.num_joints if self.config.pool == "joints" else channels

    def encode(self, x_PCTV: Tensor) -> Tensor:
        """Coordinates (P, 3, T, V) -> features q (P, C, t, V); t = `encoder.frames_left(T)`."""
        q_PCtV: Tensor = self.encoder(x_PCTV)
        return q_PCtV

    def represent(self, q_PCtV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        """h (N, D), float32: time average pooling (3.1), then the mean over each sample's present bodies.

        sample_P: int64, the sample 0..num_samples-1 that each body belongs to, in any order. A sample without
        a body gets zeros. D runs over channels, and within a channel over joints.
        """
        pooled_PCV = q_PCtV.mean(dim=2, dtype=torch.float32)
        pooled_PD = pooled_PCV.mean(dim=2) if self.config.pool == "global" else pooled_PCV.flatten(1)
        return mean_over_bodies(pooled_PD, sample_P, num_samples)

    def project(self, h_ND: Tensor) -> Tensor:
        """z (N, Z): the MLP of two linear layers into the contrastive space (3.2.1)."""
        z_NZ: Tensor = self.projector(h_ND)
        return z_NZ

    def reconstruct_spatial(self, q_PCtV: Tensor, num_frames: int) -> Tensor:
        """Coordinates (P, 3, num_frames, V) from the first half of the channels (3.2.2)."""
        rebuilt_PCTV: Tensor = self.spatial_decoder(q_PCtV[:, : self.share], num_frames)
        return rebuilt_PCTV

    def reconstruct_temporal(self, q_PCtV: Tensor, num_frames: int) -> Tensor:
        """Coordinates (P, 3, num_frames, V) from the second half of the channels (3.2.3)."""
        rebuilt_PCTV: Tensor = self.temporal_decoder(q_PCtV[:, -self.share :], num_frames)
        return rebuilt_PCTV


def mean_over_bodies(x_PD: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
    """(P, D) of packed bodies -> (N, D), the mean over each sample's bodies; zeros where there is none."""
    sum_ND = x_PD.new_zeros(num_samples, x_PD.shape[1]).index_add(0, sample_P, x_PD)
    bodies_N = torch.bincount(sample_P, minlength=num_samples)
    return sum_ND / bodies_N.clamp(min=1).unsqueeze(1)
