"""CP-STN with an ST-GCN written the usual way, to compare ours with: same layers, weights and losses.

Every sample has two bodies, an absent one being zeros that go through all layers; a graph convolution is a
1x1 convolution to all partitions and an einsum with the adjacency; everything is float32 in NCTV.

Axes: N sample, M body, B = N * M, C channel, T frame, V joint (W the joint that takes), K partition.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch_norm import FrameNorm
from model.cpstn import CPSTN
from model.losses import nt_xent
from model.recipe import Recipe
from model.stgcn import MEAN_FRAME, METRES, STGCN, Decoder, STGCNUnit
from pipeline.batch import Batch


class PlainUnit(nn.Module):
    """Graph convolution, batch norm, ReLU, temporal convolution, batch norm, residual, ReLU, dropout."""

    A_KVW: Tensor

    def __init__(self, ours: STGCNUnit) -> None:
        super().__init__()
        self.register_buffer("A_KVW", ours.spatial.A_KVV.clone())
        self.partitions = len(self.A_KVW)
        out_channels, _, kernel, _ = ours.temporal.weight.shape
        W_KDC = ours.spatial.filters_DKC.detach().transpose(0, 1)
        in_channels = W_KDC.shape[2]
        self.gcn = nn.Conv2d(in_channels, self.partitions * out_channels, 1, bias=False)
        self.gcn_norm = nn.BatchNorm2d(out_channels)
        self.tcn = nn.Conv2d(
            out_channels, out_channels, (kernel, 1), (ours.stride, 1), (kernel // 2, 0), bias=False
        )
        self.tcn_norm = nn.BatchNorm2d(out_channels)
        self.residual: nn.Module = nn.Identity()
        if ours.shortcut is not None:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, (ours.stride, 1), bias=False)
            shortcut_norm = nn.BatchNorm2d(out_channels)
            _copy(shortcut.weight, ours.shortcut.weight)
            shortcut_norm.load_state_dict(ours.shortcut_norm.state_dict())
            self.residual = nn.Sequential(shortcut, shortcut_norm)
            if ours.shortcut_frames == MEAN_FRAME:
                shortcut.stride = (1, 1)
                self.residual.insert(0, nn.AvgPool2d((ours.stride, 1), ceil_mode=True))
        self.dropout = nn.Dropout(ours.dropout.p)
        _copy(self.gcn.weight, W_KDC)
        _copy(self.tcn.weight, ours.temporal.weight)
        self.gcn_norm.load_state_dict(ours.spatial_norm.state_dict())
        self.tcn_norm.load_state_dict(ours.temporal_norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), V)."""
        carried = self.residual(x)
        x = self.gcn(x)
        bodies, channels, frames, joints = x.shape
        x = x.view(bodies, self.partitions, channels // self.partitions, frames, joints)
        x = torch.einsum("nkctv,kvw->nctw", x, self.A_KVW).contiguous()
        x = F.relu(self.gcn_norm(x), inplace=True)
        x = self.tcn_norm(self.tcn(x))
        activated: Tensor = self.dropout(F.relu(x + carried, inplace=True))
        return activated


class PlainEncoder(nn.Module):
    """Batch norm of every coordinate of every joint, over the frames that show somebody, then the units.

    The input is one stream, so that numbers scaled together are all of them, in whichever order.
    """

    def __init__(self, ours: STGCN) -> None:
        super().__init__()
        norm = ours.input_norm
        self.data_bn = FrameNorm(norm.num_features, together=norm.together)
        channels = _unit(ours.units[0]).spatial.filters_DKC.shape[2]
        # Ours counts a channel's joints one behind the other, the usual way a joint's channels.
        order = torch.arange(norm.num_features).view(channels, -1).T.flatten()
        self.data_bn.load_state_dict(
            {name: value[order] if value.dim() else value for name, value in norm.state_dict().items()}
        )
        self.units = nn.Sequential(*(PlainUnit(_unit(unit)) for unit in ours.units))

    def forward(self, x_NMCTV: Tensor) -> Tensor:
        """(N, M, C, T, V) -> features (N * M, C, t, V)."""
        samples, bodies, channels, frames, joints = x_NMCTV.shape
        x = x_NMCTV.permute(0, 1, 3, 4, 2).reshape(samples * bodies * frames, joints * channels)
        x = self.data_bn(x).view(samples * bodies, frames, joints, channels)
        features_BCTV: Tensor = self.units(x.permute(0, 3, 1, 2).contiguous())
        return features_BCTV


class PlainDecoder(nn.Module):
    """Repeated frames before each unit, and a 1x1 convolution to coordinates."""

    def __init__(self, ours: Decoder) -> None:
        super().__init__()
        self.units = nn.ModuleList(PlainUnit(_unit(unit)) for unit in ours.units)
        coordinates, channels = ours.to_coordinates.weight.shape
        self.to_coordinates = nn.Conv2d(channels, coordinates, 1)
        _copy(self.to_coordinates.weight, ours.to_coordinates.weight)
        _copy(self.to_coordinates.bias, ours.to_coordinates.bias)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B, C, t, V) -> (B, C_out, frames, V)."""
        few = x.shape[2]
        for index, unit in enumerate(self.units):
            halvings = len(self.units) - 1 - index
            now = max(few, -(-frames // 2**halvings))
            x = unit(F.interpolate(x, size=(now, x.shape[3]), mode="nearest"))
        rebuilt: Tensor = self.to_coordinates(x)
        return rebuilt


def refuse_unlike(recipe: Recipe) -> None:
    """Raises ValueError that names the key if a recipe asks for what the plain network does not have."""
    usual, encoder = Recipe(), recipe.model.encoder
    expected = {
        "objective": (recipe.objective, usual.objective),
        "views": (recipe.views, usual.views),
        "reduction": (recipe.reduction, usual.reduction),
        "model.backbone": (recipe.model.backbone, usual.model.backbone),
        "model.streams": (recipe.model.streams, usual.model.streams),
        "model.contrast_pool": (recipe.model.contrast_pool, usual.model.contrast_pool),
        "model.decoder.upsampling": (recipe.model.decoder.upsampling, usual.model.decoder.upsampling),
        "model.encoder.adaptive": (encoder.adaptive, usual.model.encoder.adaptive),
        "model.encoder.residual": (encoder.residual, usual.model.encoder.residual),
    }
    for key, (found, known) in expected.items():
        if found != known:
            raise ValueError(f"{key} is {found!r}; the plain ST-GCN to compare with knows only {known!r}")
    for key in ("contrast_weight", "spatial_weight", "temporal_weight"):
        if getattr(recipe, key) == 0:
            raise ValueError(f"{key} is 0; the plain ST-GCN to compare with computes all losses")


@dataclass(frozen=True)
class PlainBatch:
    """The same batch, with two bodies for every sample; zeros where one is absent.

    original_NMCTV, views_NMCTV: float32 metres.  present_NM: whether there is a body.  visible_N: int64, the
    frames of the second view that are not masked.
    """

    original_NMCTV: Tensor
    views_NMCTV: tuple[Tensor, Tensor]
    present_NM: Tensor
    visible_N: Tensor


def plain_batch(batch: Batch, max_bodies: int = 2) -> PlainBatch:
    """A packed batch, with its absent bodies again."""
    first_P = torch.searchsorted(batch.sample_P, batch.sample_P)
    slot_P = torch.arange(len(batch.sample_P), device=batch.sample_P.device) - first_P

    def unpacked(x_PCTV: Tensor) -> Tensor:
        out_NMCTV = x_PCTV.new_zeros(batch.num_samples, max_bodies, *x_PCTV.shape[1:])
        out_NMCTV[batch.sample_P, slot_P] = x_PCTV
        return out_NMCTV

    spatial, temporal = batch.views
    present_NM = unpacked(torch.ones(len(slot_P), device=slot_P.device)).bool()
    views_NMCTV = (unpacked(spatial.x_PCTV), unpacked(temporal.x_PCTV))
    return PlainBatch(unpacked(batch.original_PCTV), views_NMCTV, present_NM, temporal.visible_N)


class PlainCPSTN(nn.Module):
    """All of the pre-training's network, with the weights that ours has at this moment."""

    def __init__(self, ours: CPSTN) -> None:
        super().__init__()
        self.encoder = PlainEncoder(_stgcn(ours.encoder))
        hidden, out = ours.config.projection
        pooled = ours.config.contrast_pool.size(ours.encoder.out_channels, ours.num_joints)
        self.projector = nn.Sequential(
            nn.Linear(pooled, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out)
        )
        self.projector.load_state_dict(ours.projector.state_dict())
        self.spatial_decoder = PlainDecoder(ours.spatial_decoder)
        self.temporal_decoder = PlainDecoder(ours.temporal_decoder)
        self.share = ours.decoder_channels
        self.in_metres = ours.config.decoder.output == METRES

    def losses(self, batch: PlainBatch, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Contrast of the views, spatial and temporal reconstruction (means); each view in its own pass."""
        first_BCTV, second_BCTV = (self.encoder(view_NMCTV) for view_NMCTV in batch.views_NMCTV)
        z_first_NZ, z_second_NZ = (
            self.projector(self.represent(q_BCTV, batch.present_NM)) for q_BCTV in (first_BCTV, second_BCTV)
        )
        frames = batch.original_NMCTV.shape[3]
        every_NMT = batch.present_NM.unsqueeze(2).expand(-1, -1, frames)
        masked_NT = torch.arange(frames, device=batch.visible_N.device) >= batch.visible_N.unsqueeze(1)
        spatial = self.to_metres(self.spatial_decoder(first_BCTV[:, : self.share], frames))
        temporal = self.to_metres(self.temporal_decoder(second_BCTV[:, -self.share :], frames))
        return (
            nt_xent(z_first_NZ, z_second_NZ, temperature),
            mean_error(spatial, batch.original_NMCTV, every_NMT),
            mean_error(temporal, batch.original_NMCTV, every_NMT & masked_NT.unsqueeze(1)),
        )

    def to_metres(self, given_BCTV: Tensor) -> Tensor:
        """From deviations of the encoder's input, if it is these that decoders give."""
        if self.in_metres:
            return given_BCTV
        norm, joints = self.encoder.data_bn, given_BCTV.shape[3]
        deviation_CV, mean_CV = (
            of_all.view(joints, -1).T for of_all in (norm.running_deviation_D, norm.running_mean)
        )
        return given_BCTV * deviation_CV[:, None] + mean_CV[:, None]

    def represent(self, q_BCTV: Tensor, present_NM: Tensor) -> Tensor:
        """h (N, C * V): mean over time and over the bodies that are there."""
        pooled = q_BCTV.mean(dim=2).flatten(1).view(*present_NM.shape, -1)
        present = present_NM.unsqueeze(2).to(pooled.dtype)
        return (pooled * present).sum(dim=1) / present.sum(dim=1)


def mean_error(rebuilt_BCTV: Tensor, original_NMCTV: Tensor, counted_NMT: Tensor) -> Tensor:
    """Squared error of the counted frames, a mean per number."""
    error = (rebuilt_BCTV.view_as(original_NMCTV) - original_NMCTV) ** 2
    counted = counted_NMT[:, :, None, :, None].to(error.dtype)
    return (error * counted).sum() / (counted.sum() * error.shape[2] * error.shape[4])


def _copy(target: Tensor | None, source: Tensor) -> None:
    assert target is not None
    with torch.no_grad():
        target.copy_(source.reshape(target.shape))


def _unit(module: nn.Module) -> STGCNUnit:
    assert isinstance(module, STGCNUnit)
    return module


def _stgcn(module: nn.Module) -> STGCN:
    assert isinstance(module, STGCN)
    return module
