"""Batch normalisation over what is there: without frames that show nobody, and over the bodies of all ranks.

Axes: F frame of any body, D number of a frame, N sample or another first axis, C channel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from model.parallel import ALONE, Ranks


class FrameNorm(nn.Module):
    """Batch normalisation of frames, each number by its own mean and deviation, as ST-GCN begins with.

    together: how many numbers, side by side, are divided by one deviation, the root of their mean variance;
    1 is each by its own. Each has its own mean.

    A frame in which every number is 0 shows nobody: it is masked, or the body is absent. It has no part in
    the statistics and stays 0, which is the mean of all that are seen until a bias is learnt. For plain batch
    normalisation such a frame is a body that lies in one point, many deviations from any other. Nothing waits
    for the device.

    Parameters and buffers are named as those of `torch.nn.BatchNorm1d`, and mean the same; `momentum` of None
    averages all batches alike. ranks: that normalise together.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, *, together: int = 1
    ) -> None:
        super().__init__()
        assert num_features % together == 0
        self.num_features, self.eps, self.momentum, self.ranks = num_features, eps, momentum, ALONE
        self.together = together
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def reset_running_stats(self) -> None:
        """As before the first batch."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x_FD: Tensor) -> Tensor:
        """float (F, D) -> (F, D); no gradient passes through the statistics, as the input needs none."""
        seen_F1 = (x_FD != 0).any(dim=1, keepdim=True).to(x_FD.dtype)
        mean_D, variance_D = self.running_mean, self.running_var
        if self.training:
            mean_D, variance_D = self._measure(x_FD.detach(), seen_F1)
        scale_D = self.weight * torch.rsqrt(self._in_common(variance_D) + self.eps)
        return ((x_FD - mean_D) * scale_D + self.bias) * seen_F1

    @property
    def running_deviation_D(self) -> Tensor:  # noqa: N802
        """What each number is divided by in evaluation, (D)."""
        return (self._in_common(self.running_var) + self.eps).sqrt()

    def _in_common(self, variance_D: Tensor) -> Tensor:
        if self.together == 1:
            return variance_D
        return variance_D.view(-1, self.together).mean(1).repeat_interleave(self.together)

    @torch.no_grad()
    def _measure(self, x_FD: Tensor, seen_F1: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over the seen frames of all ranks, which the running ones follow."""
        sum_D, seen = self.ranks.sum(torch.cat([x_FD.sum(0), seen_F1.sum(0)])).split([self.num_features, 1])
        seen = seen.clamp(min=1)
        mean_D = sum_D / seen
        variance_D = self.ranks.sum(((x_FD - mean_D) * seen_F1).square().sum(0)) / seen
        self.num_batches_tracked += 1
        share = mean_D.new_ones(()) / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_D, share)
        self.running_var.lerp_(variance_D * seen / (seen - 1).clamp(min=1), share)
        return mean_D, variance_D


def share_batch_norm(model: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """The model with batch normalisation over the bodies of all ranks; names and values stay as they are."""
    if ranks.world == 1:
        return model
    for module in model.modules():
        if isinstance(module, FrameNorm):
            module.ranks = ranks
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SharedBatchNorm(child, ranks))
    return model


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation whose mean and deviation are those of all ranks, however many bodies each has.

    For CPUs, which torch's SyncBatchNorm refuses. Takes weights and running statistics over from `norm`.
    """

    def __init__(self, norm: _BatchNorm, ranks: Ranks) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        assert norm.affine
        assert norm.track_running_stats
        self.ranks = ranks
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, ...) of this rank's bodies -> the same shape and type; computes in float32."""
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x, shape = input.float(), (1, -1, *[1] * (input.dim() - 2))
        dims = [axis for axis in range(x.dim()) if axis != 1]
        own_count = x.new_full((1,), x.numel() // x.shape[1])
        sum_C, count = self.ranks.sum(torch.cat([x.sum(dims), own_count])).split([x.shape[1], 1])
        centred = x - (sum_C / count).view(shape)
        # Not from the sum of squares: where the mean is large beside the deviation, it would drown it.
        variance_C = self.ranks.sum(centred.square().sum(dims)) / count
        self._remember(sum_C.detach() / count, variance_C.detach() * count / (count - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        out: Tensor = centred * scale_C.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)
        self.num_batches_tracked += 1
