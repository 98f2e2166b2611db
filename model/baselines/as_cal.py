"""AS-CAL-like: momentum contrast of two augmented views, with a queue of negatives.

After Rao et al., "Augmented Skeleton Based Contrastive Action Learning with Momentum LSTM for Unsupervised
Action Recognition" (Information Sciences, 2021). As there: an LSTM encodes the query view, a moving average
of it the key view; states are averaged over time and contrasted without a projector; the newest keys are the
negatives. Not as there: the views are ours, with rotation, shear and jitter but without subtraction of a
random joint and time reversal; bodies are sequences of their own, whose states are averaged, where AS-CAL
reads both as one long vector; the input is normalised per coordinate; Adam takes the place of SGD.

Axes: N sample, P packed present body, C channel, T frame, V joint, Z contrasted vector, K key of the queue.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.baseline import Baseline
from model.baselines.settings import AsCalConfig
from model.cpstn import CPSTN
from model.device import mixed_precision
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.share import Share
from pipeline.batch import Batch, View


class AsCalLike(Baseline):
    """The first view of each sample is the query, the second the key."""

    loss_names = ("contrast", "total")
    head: "MomentumKeys"

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        super().__init__(model, MomentumKeys(model, recipe.as_cal_like), recipe, ranks)

    def backward(self, share: Share, step: int) -> Tensor:
        """As `Baseline.backward`. The key encoder follows first; the batch's keys enter the queue last."""
        self.head.follow(self.model)
        self._keys: list[Tensor] = []
        losses_L = super().backward(share, step)
        self.head.remember(self.ranks.gather(torch.cat(self._keys)))
        return losses_L

    def count(self, parts: list[Batch]) -> int:
        """The samples of the whole batch."""
        return self.count_samples(parts)

    def losses(self, batch: Batch, step: int, count: Tensor | int) -> Tensor:  # noqa: ARG002
        """InfoNCE, and once more as the total."""
        query, key = batch.views
        query_NZ = self._contrasted(self.model, query, batch)
        with torch.no_grad():
            key_NZ = self._contrasted(self.head.encoder, key, batch)
        self._keys.append(key_NZ)
        loss = info_nce(query_NZ, key_NZ, self.head.queue_KZ, self.recipe.temperature) / count
        return loss.repeat(2)

    def _contrasted(self, model: CPSTN, view: View, batch: Batch) -> Tensor:
        """(N, Z) of length 1, float32."""
        with mixed_precision(self.recipe.precision, view.x_PCTV.device):
            q_PCTV = model.encode(view.x_PCTV)
        return F.normalize(model.to_contrast(q_PCTV, batch.sample_P, batch.num_samples), dim=1)


class MomentumKeys(nn.Module):
    """The key encoder, and the keys of the batches before.

    queue_KZ: vectors of length 1; random ones until there are enough keys.  place: the oldest of them.
    """

    queue_KZ: Tensor
    place: Tensor

    def __init__(self, model: CPSTN, config: AsCalConfig) -> None:
        super().__init__()
        self.momentum = config.momentum
        self.encoder = deepcopy(model).requires_grad_(False)
        self.encoder.projector = nn.Sequential()  # what is contrasted is not projected
        width = model.config.contrast_pool.size(model.encoder.out_channels, model.num_joints)
        self.register_buffer("queue_KZ", F.normalize(torch.randn(config.queue, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, model: CPSTN) -> None:
        """Each weight of the key encoder becomes momentum * itself + (1 - momentum) * the model's. In place.

        Batch normalisation's running statistics are each encoder's own.
        """
        theirs = dict(model.named_parameters())
        for name, weight in self.encoder.named_parameters():
            weight.lerp_(theirs[name], 1 - self.momentum)

    @torch.no_grad()
    def remember(self, key_NZ: Tensor) -> None:
        """Put the keys where the oldest ones were; there are no more than the queue holds. In place."""
        capacity, added = len(self.queue_KZ), len(key_NZ)
        assert added <= capacity
        places_N = (self.place + torch.arange(added, device=key_NZ.device)) % capacity
        self.queue_KZ.index_copy_(0, places_N, key_NZ)
        self.place.add_(added).remainder_(capacity)


def info_nce(query_NZ: Tensor, key_NZ: Tensor, queue_KZ: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of a query's own key against the whole queue, summed over the samples. Scalar float32.

    All vectors have length 1, so that their products are cosines.
    """
    own_N1 = (query_NZ * key_NZ).sum(dim=1, keepdim=True)
    logits = torch.cat([own_N1, query_NZ @ queue_KZ.T], dim=1) / temperature
    target_N = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, target_N, reduction="sum")
