"""Graph convolution: what a joint's features become by its neighbours', Eq. 1 of the paper.

Axes: P present body, C channel, T frame, V joint, K partition of a joint's neighbours, E embedding of the
attention, D filter.

Tensors are shaped PCTV for the reader, but lie in memory as PTVC (torch.channels_last): mixing channels and
taking over from neighbours are then plain matrix products without a copy between them. On a CPU core the
encoder, forward and backward, took 0.6 to 0.8 of the time of ST-GCN's own form (1x1 convolution, einsum).
"""

import torch
from torch import Tensor, nn

ADAPTIVE = ("A", "A+B", "A+C", "A+B+C")
# Below this width one product over joints for all channels at once beats one small product for each frame.
NARROW = 8


class GraphConvolution(nn.Module):
    """sum_k W_k f (A_k + B_k + C_k), Eq. 1; the terms B and C only where `adaptive` names them.

    B_k is learnt, from almost nothing. C_k is an attention between joints, for each body its own
    (2s-AGCN's embedded Gaussian).
    """

    A_KVV: Tensor

    def __init__(self, A_KVV: Tensor, in_channels: int, out_channels: int, adaptive: str = "A") -> None:
        super().__init__()
        partitions = A_KVV.shape[0]
        self.register_buffer("A_KVV", A_KVV, persistent=False)
        self.B_KVV = nn.Parameter(torch.full_like(A_KVV, 1e-6)) if "B" in adaptive else None
        self.embedding_size = max(out_channels // 4, 1)
        self.embed = nn.Linear(in_channels, 2 * partitions * self.embedding_size) if "C" in adaptive else None
        # W and A commute, so the neighbours' features are gathered where there are fewer channels.
        self.gathers_first = in_channels <= out_channels
        if self.gathers_first:
            self.mix = nn.Linear(partitions * in_channels, out_channels, bias=False)
        else:
            self.mix = nn.Linear(in_channels, partitions * out_channels, bias=False)

    @property
    def filters_DKC(self) -> Tensor:  # noqa: N802
        """W_k of Eq. 1 as a view of the weights: (C_out, K, C_in)."""
        partitions, weight = self.A_KVV.shape[0], self.mix.weight
        if self.gathers_first:
            return weight.view(len(weight), partitions, -1)
        return weight.view(partitions, -1, weight.shape[1]).transpose(0, 1)

    def forward(self, x_PCTV: Tensor) -> Tensor:
        """(P, C_in, T, V) -> (P, C_out, T, V)."""
        x_PTVC = x_PCTV.permute(0, 2, 3, 1)
        graph_KVV = self._graph(x_PTVC)
        if self.gathers_first:
            out_PTVC: Tensor = self.mix(_gather(x_PTVC, graph_KVV))
        else:
            out_PTVC = _gather_and_sum(self.mix(x_PTVC), graph_KVV)
        return out_PTVC.permute(0, 3, 1, 2)

    def _graph(self, x_PTVC: Tensor) -> Tensor:
        """(K, V, V), or (P, K, V, V) where each body has its own."""
        graph_KVV = self.A_KVV if self.B_KVV is None else self.A_KVV + self.B_KVV
        return graph_KVV if self.embed is None else graph_KVV + self._attention(x_PTVC, self.embed)

    def _attention(self, x_PTVC: Tensor, embed: nn.Linear) -> Tensor:
        """C_k: (P, K, V, V); what each joint takes from all, itself among them, sums to 1."""
        bodies, frames, joints, _ = x_PTVC.shape
        embedded = embed(x_PTVC).view(bodies, frames, joints, 2, -1, self.embedding_size)
        from_PKVTE, to_PKVTE = embedded.permute(3, 0, 4, 2, 1, 5)
        scores_PKVV = from_PKVTE.flatten(3) @ to_PKVTE.flatten(3).transpose(2, 3)
        return torch.softmax(scores_PKVV / (frames * self.embedding_size), dim=2)


def _gather(x_PTVC: Tensor, graph_KVV: Tensor) -> Tensor:
    """Each joint's neighbours' features, partition by partition: (P, T, V, K*C)."""
    bodies, frames, joints, channels = x_PTVC.shape
    partitions = graph_KVV.shape[-3]
    if channels < NARROW:
        right = graph_KVV.movedim(-3, -1).flatten(-2)  # (..., V, V*K)
        near = x_PTVC.transpose(2, 3).reshape(bodies, frames * channels, joints) @ right
        return near.view(bodies, frames, channels, joints, partitions).permute(0, 1, 3, 4, 2).flatten(3)
    left = graph_KVV.movedim(-1, -3).flatten(-3, -2)  # (..., V*K, V)
    if left.dim() == 3:
        left = left.unsqueeze(1)
    return (left @ x_PTVC).reshape(bodies, frames, joints, partitions * channels)


def _gather_and_sum(mixed: Tensor, graph_KVV: Tensor) -> Tensor:
    """From (P, T, V, K*C), a message of each joint for each partition, to what arrives: (P, T, V, C)."""
    bodies, frames, joints, _ = mixed.shape
    partitions = graph_KVV.shape[-3]
    left = graph_KVV.movedim(-1, -3).transpose(-2, -1).flatten(-2)  # (..., V, V*K)
    if left.dim() == 3:
        left = left.unsqueeze(1)
    return left @ mixed.reshape(bodies, frames, joints * partitions, -1)
