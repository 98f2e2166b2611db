"""CP-STN: one encoder, a projection for the contrast, and a decoder for each of the two pretexts.

Axes: N sample, P present body of the batch, C channel, T frame (t after the encoder's strides), V joint,
D size of a pooled vector such as the representation h, Z size of a projection z.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from data_specs.skeleton import Skeleton
from model.batch_norm import FrameNorm
from model.checks import check_at_most, check_choice, check_not_negative, check_positive_list, check_some
from model.first_weights import initialise
from model.pooling import OF_CHANGE, PoolConfig, final_state, pool_samples
from model.recurrent import RECURRENT, RecurrentConfig, RecurrentEncoder
from model.statistics import StatisticsConfig, StatisticsEncoder
from model.stgcn import DEVIATIONS, METRES, STGCN, Decoder, DecoderConfig, EncoderConfig
from model.streams import JOINT, STREAMS, check_ends, streams

ST_GCN, STATISTICS = "st_gcn", "statistics"
BACKBONES = (ST_GCN, STATISTICS, *RECURRENT)
# Whitening looks at no more directions of the features, the principal ones: matrices grow with the square.
MOST_WHITENED = 4096


@dataclass(frozen=True)
class ModelConfig:
    """What the network looks like; the encoder's graph serves the decoders, too.

    streams: what the encoder sees of a body; see `model.streams`.
    projection: widths of the two linear layers (3.2.1).
    pool: how features become the representation h.  contrast_pool: how they become what is projected and
        contrasted. By default, as in the paper, both are the time average of each joint.
    split_channels: each decoder has its own half of the channels (3.1; "half-C" in Table 5), or all.
    backbone: what encodes: "st_gcn", which `encoder` describes, a recurrent network, which `recurrent` does,
        or a network on "statistics" of the input. The features of these two have no joints, so that there
        are no pretexts on them.
    whitened: as what a frozen encoder's h is handed on: 0, as the pool gives it, or as so many numbers that
        keep its directions, where what only tells changed copies of a recording apart was made small, without
        labels; see `model.calibrate`. Training knows nothing of it.
    Raises ValueError that names the key.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    projection: tuple[int, ...] = (256, 128)
    pool: PoolConfig = field(default_factory=PoolConfig)
    split_channels: bool = True
    backbone: str = ST_GCN
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    streams: tuple[str, ...] = ("joint",)
    contrast_pool: PoolConfig = field(default_factory=PoolConfig)
    whitened: int = 0

    def __post_init__(self) -> None:
        check_not_negative(self, "whitened")
        check_at_most("whitened", self.whitened, MOST_WHITENED)
        check_positive_list("projection", self.projection, 2)
        check_some("streams", self.streams, STREAMS)
        check_choice("backbone", self.backbone, BACKBONES)
        if self.backbone == ST_GCN and self.split_channels and self.encoder.widths[-1] % 2:
            raise ValueError(
                f"encoder.widths ends with {self.encoder.widths[-1]}; expected an even number, or "
                "model.split_channels=false"
            )
        unseen = [name for name in self.statistics.graph_streams if name not in self.streams]
        if self.backbone == STATISTICS and unseen:
            raise ValueError(
                f"statistics.graph_streams holds {unseen[0]!r}; expected some of the streams "
                f"{list(self.streams)}"
            )
        if self.backbone == ST_GCN and self.decoder.output == DEVIATIONS and JOINT not in self.streams:
            raise ValueError(
                f"decoder.output is {DEVIATIONS!r}, which are from the mean of the stream {JOINT!r}; "
                f"expected it among the streams {list(self.streams)}, or model.decoder.output={METRES}"
            )

    def frames_left(self, num_frames: int) -> int:
        """t: how many of that many frames the encoder leaves."""
        if self.backbone == STATISTICS:
            return 1
        return self.encoder.frames_left(num_frames) if self.backbone == ST_GCN else num_frames

    def check_frames(self, num_frames: int) -> None:
        """Raises ValueError if recordings of that many frames leave too few for a pool's spans."""
        if self.backbone == STATISTICS and max(self.statistics.spans) > num_frames:
            raise ValueError(
                f"model.statistics.spans holds {max(self.statistics.spans)}; expected at most the "
                f"{num_frames} frames of the recordings"
            )
        left = self.frames_left(num_frames)
        for name, config in (("pool", self.pool), ("contrast_pool", self.contrast_pool)):
            if max(config.spans) > left and self.backbone == STATISTICS:
                raise ValueError(
                    f"model.{name}.spans holds {max(config.spans)}; expected [1], as statistics leave no "
                    "frames; theirs are model.statistics.spans"
                )
            if max(config.spans) > left:
                raise ValueError(
                    f"model.{name}.spans holds {max(config.spans)}; expected at most the {left} frames that "
                    f"the encoder leaves of {num_frames}; use fewer spans, smaller strides, longer shards"
                )

    def check_changes(self, num_frames: int, *, contrast: bool) -> None:
        """Raises ValueError if recordings of that many frames leave a single one for all that is said of how
        features change over time: it would be the same for everybody. contrast: whether anything is
        contrasted, and the contrast's pool looked at."""
        left = self.frames_left(num_frames)
        pools = {"pool": self.pool} | ({"contrast_pool": self.contrast_pool} if contrast else {})
        for name, config in pools.items():
            changing = [statistic for statistic in config.statistics if statistic in OF_CHANGE]
            if changing and left <= min(config.spans):
                raise ValueError(_of_one_frame(f"{name}.statistics", changing[0], left, num_frames))
        graph, left = self.statistics, self.encoder.frames_left(num_frames)
        changing = [statistic for statistic in graph.graph_statistics if statistic in OF_CHANGE]
        if self.backbone == STATISTICS and graph.graph_streams and changing and left == 1:
            raise ValueError(_of_one_frame("statistics.graph_statistics", changing[0], left, num_frames))


def _of_one_frame(key: str, statistic: str, left: int, num_frames: int) -> str:
    return (
        f"model.{key} holds {statistic!r}, which of one frame is the same for all, and the encoder leaves "
        f"{left} of {num_frames}; expected ['mean'], or fewer spans, smaller strides, longer shards"
    )


class CPSTN(nn.Module):
    """The framework of the paper's Figure 1. Every step is a method; the training loop puts them together.

    spatial_pretext, temporal_pretext: whether there is a decoder for it; only an ST-GCN has any.
    Raises ValueError if a stream needs what the skeleton does not have.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        config: ModelConfig,
        *,
        spatial_pretext: bool = True,
        temporal_pretext: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        check_ends(config.streams, skeleton)
        self.skeleton = skeleton
        in_channels = 3 * len(config.streams)
        self.encoder: STGCN | RecurrentEncoder | StatisticsEncoder
        # Of a frozen encoder, (N, D) -> (N, E), where `config.whitened` asks for it: see `model.calibrate`.
        self.whitening: Callable[[Tensor], Tensor] | None = None
        self.backward_channels = 0
        if config.backbone == ST_GCN:
            self.encoder, self.num_joints = STGCN(skeleton, config.encoder, in_channels), skeleton.num_joints
        else:
            assert not spatial_pretext, "a decoder needs features of joints"
            assert not temporal_pretext, "a decoder needs features of joints"
            self.num_joints = 1
            if config.backbone == STATISTICS:
                self.encoder = StatisticsEncoder(skeleton, config.statistics, config.streams, config.encoder)
            else:
                self.encoder = RecurrentEncoder(skeleton, config.backbone, config.recurrent, in_channels)
                self.backward_channels = self.encoder.backward_channels
        # What an encoder hands on without having learnt it would make the contrast too easy.
        self.contrast_channels = self.encoder.out_channels
        if isinstance(self.encoder, StatisticsEncoder):
            self.contrast_channels = self.encoder.learnt_channels
        hidden, out = config.projection
        self.projector = nn.Sequential(
            nn.Linear(config.contrast_pool.size(self.contrast_channels, self.num_joints), hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )
        initialise(self.projector)
        self.decoder_channels: int = self.encoder.out_channels // (2 if config.split_channels else 1)
        decoder = partial(
            Decoder, skeleton, config.decoder, self.decoder_channels, graph=config.encoder.graph
        )
        if spatial_pretext:
            self.spatial_decoder = decoder()
        if temporal_pretext:
            self.temporal_decoder = decoder()

    @property
    def representation_size(self) -> int:
        """D of h."""
        return self.config.pool.size(self.encoder.out_channels, self.num_joints)

    @property
    def fitted(self) -> nn.ModuleDict:
        """The parts of the encoder, by name, that are fitted before the first step and then stay as they are;
        see `model.whitening.fit_encoder`."""
        return self.encoder.fitted if isinstance(self.encoder, StatisticsEncoder) else nn.ModuleDict()

    def take_fitted(self, state: Mapping[str, Tensor]) -> None:
        """Take over what was fitted, if anything, from the state of a trained model of the same kind."""
        for name, part in self.fitted.items():
            prefix = f"encoder.{name}."
            own = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            part.load_state_dict(own)

    def encode(self, x_PCTV: Tensor) -> Tensor:
        """Coordinates (P, 3, T, V) -> features q (P, C, t, V); t = `ModelConfig.frames_left(T)`."""
        q_PCtV: Tensor = self.encoder(streams(x_PCTV, self.config.streams, self.skeleton))
        return q_PCtV

    def represent(self, q_PCtV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        """h (N, D), float32: features pooled over time (3.1), then over each sample's bodies.

        sample_P: int64, the sample 0..num_samples-1 that each body belongs to, in any order. A sample without
        a body gets zeros. D is ordered as `model.pooling.pool` says.
        """
        return pool_samples(q_PCtV, self.config.pool, sample_P, num_samples, self.backward_channels)

    def representation(self, x_PCTV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        """h (N, D) of coordinates (P, 3, T, V): what classifiers are given. sample_P: see `represent`."""
        return self.represent(self.encode(x_PCTV), sample_P, num_samples)

    def to_contrast(self, q_PCtV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        """What is projected and contrasted, float32: as `represent`, pooled as `contrast_pool` says, of what
        the encoder has learnt."""
        learnt_PCtV = q_PCtV[:, : self.contrast_channels]
        config = self.config.contrast_pool
        return pool_samples(learnt_PCtV, config, sample_P, num_samples, self.backward_channels)

    def final_state(self, q_PCtV: Tensor) -> Tensor:
        """What a recurrent encoder has at its end, (P, C), float32: see `model.pooling.final_state`."""
        assert self.num_joints == 1
        return final_state(q_PCtV, self.backward_channels).squeeze(2)

    def project(self, pooled_ND: Tensor) -> Tensor:
        """z (N, Z): the MLP of two linear layers into the contrastive space (3.2.1)."""
        z_NZ: Tensor = self.projector(pooled_ND)
        return z_NZ

    def reconstruct_spatial(self, q_PCtV: Tensor, num_frames: int) -> Tensor:
        """Coordinates (P, 3, num_frames, V), metres, from the first half of the channels (3.2.2).

        Without `split_channels` from all of them. A decoder that gives deviations gives them from the running
        statistics of the encoder's input.
        """
        return self._in_metres(self.spatial_decoder(q_PCtV[:, : self.decoder_channels], num_frames))

    def reconstruct_temporal(self, q_PCtV: Tensor, num_frames: int) -> Tensor:
        """Coordinates (P, 3, num_frames, V), metres, from the second half of the channels (3.2.3).

        Without `split_channels` from all of them.
        """
        return self._in_metres(self.temporal_decoder(q_PCtV[:, -self.decoder_channels :], num_frames))

    def _in_metres(self, given_PCTV: Tensor) -> Tensor:
        """Of deviations: times the deviation, plus the mean, by which the encoder normalises its input, of
        each coordinate and joint. A graph convolution, which treats all joints alike, could not tell where
        each of them is in the mean."""
        if self.config.decoder.output == METRES:
            return given_PCTV
        norm, numbers = self.encoder.input_norm, 3 * self.num_joints
        assert isinstance(norm, FrameNorm)
        first = numbers * self.config.streams.index(JOINT)
        mean_C1V, deviation_C1V = (
            of_all[first : first + numbers].view(3, 1, -1)
            for of_all in (norm.running_mean, norm.running_deviation_D)
        )
        return given_PCTV * deviation_C1V + mean_C1V
