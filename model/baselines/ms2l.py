"""MS2L-like: motion prediction, a jigsaw of segments and a contrast, on one recurrent encoder.

After Lin et al., "MS2L: Multi-Task Self-Supervised Learning for Skeleton Based Action Recognition" (ACM MM
2020). As there: three copies of a recording are encoded, whole, with its tail masked, and with three segments
in another order; a GRU rebuilds the recording from the features of the masked copy, a classifier names the
order, and each copy is contrasted with the mean of the three. Not as there: one bidirectional layer where
there are two, one layer in the decoder, heads without batch normalisation, and no gradient clipping; frames
in which the body is absent are not predicted.

Axes: N sample, P packed present body, C channel, T frame, V joint, K order of segments, S segment, Z size of
a projection, F coordinate of a joint (3 * V).
"""

from itertools import permutations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.baseline import Baseline
from model.baselines.reconstruction import bodies_of, count_seen, squared_error
from model.cpstn import CPSTN
from model.device import mixed_precision, sent
from model.losses import nt_xent
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.recurrent import run_layers
from pipeline.batch import Batch


class MS2LLike(Baseline):
    """The masked copy is the temporal view, the only one. Works on a batch at once, not in parts."""

    loss_names = ("prediction", "jigsaw", "contrast", "total")
    head: "Tasks"

    def __init__(self, model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        super().__init__(model, Tasks(model, recipe.ms2l_like.segments), recipe, ranks)

    def count(self, parts: list[Batch]) -> int:
        """The samples of the whole batch."""
        assert len(parts) == 1, "the contrast compares all samples with all others"
        return self.count_samples(parts)

    def losses(self, batch: Batch, step: int, count: Tensor | int) -> Tensor:
        """The three tasks, unweighted, and their weighted sum."""
        config, (masked,) = self.recipe.ms2l_like, batch.views
        label_N = jigsaw_labels(batch.ids_N, self.recipe.seed, step, config.segments)
        label_N = sent(label_N, batch.original_PCTV.device)
        shuffled_PCTV = shuffle_segments(batch.original_PCTV, label_N[batch.sample_P], config.segments)
        copies = [batch.original_PCTV, masked.x_PCTV, shuffled_PCTV]
        q_PCTV = self.encode(torch.cat(copies))
        whole = batch.target_of(masked)
        with mixed_precision(self.recipe.precision, whole.device):
            predicted_PCTV = self.head.predict(q_PCTV.chunk(3)[1])
            pooled = [self._pooled(copy_PCTV, batch) for copy_PCTV in q_PCTV.chunk(3)]
            scores_NK = self.head.jigsaw(pooled[2])
            projected = [self.model.project(pooled_ND).float() for pooled_ND in pooled]
        prediction = squared_error(predicted_PCTV, whole, count_seen([whole], self.ranks))
        jigsaw = F.cross_entropy(scores_NK.float(), label_N, reduction="sum") / count
        contrast = contrast_with_mean(projected, self.recipe.temperature, self.ranks)
        total = (
            config.prediction_weight * prediction
            + config.jigsaw_weight * jigsaw
            + config.contrast_weight * contrast
        )
        return torch.stack([prediction, jigsaw, contrast, total])

    def _pooled(self, q_PCTV: Tensor, batch: Batch) -> Tensor:
        return self.model.to_contrast(q_PCTV, batch.sample_P, batch.num_samples)


class Tasks(nn.Module):
    """The decoder of motion prediction and the classifier of the jigsaw; the contrast has the model's MLP."""

    def __init__(self, model: CPSTN, segments: int) -> None:
        super().__init__()
        size, orders = model.encoder.out_channels, len(segment_orders(segments))
        pooled = model.config.contrast_pool.size(size, model.num_joints)
        self.decoder = nn.GRU(size, size, batch_first=True)
        self.read = nn.Linear(size, 3 * model.skeleton.num_joints)
        self.jigsaw = nn.Sequential(nn.Linear(pooled, size), nn.ReLU(inplace=True), nn.Linear(size, orders))

    def predict(self, q_PCTV: Tensor) -> Tensor:
        """Features (P, C, T, 1) -> coordinates (P, 3, T, V) of every frame."""
        return bodies_of(self.read(run_layers(self.decoder, q_PCTV.squeeze(3).transpose(1, 2))))


def segment_orders(segments: int) -> list[tuple[int, ...]]:
    """Every order of the segments; a label of the jigsaw is a place in this list, 0 the order as it was."""
    return list(permutations(range(segments)))


def jigsaw_labels(ids_N: Tensor, seed: int, step: int, segments: int) -> Tensor:
    """int64 (N,): the order that each sample is put in; from seed, step and the sample's id alone."""
    orders = len(segment_orders(segments))
    drawn = [np.random.default_rng((seed, step, row)).integers(orders) for row in ids_N.tolist()]
    return torch.tensor(drawn, dtype=torch.int64)


def shuffle_segments(x_PCTV: Tensor, label_P: Tensor, segments: int) -> Tensor:
    """Each body's segments in the order of its label. Frames left over at the end stay where they are."""
    frames = x_PCTV.shape[2]
    length = frames // segments
    frame_SL = torch.arange(segments * length).view(segments, length)
    rest = torch.arange(segments * length, frames)
    orders = [torch.cat([frame_SL[list(order)].flatten(), rest]) for order in segment_orders(segments)]
    source_PT = sent(torch.stack(orders), x_PCTV.device)[label_P]
    return x_PCTV.gather(2, source_PT[:, None, :, None].expand_as(x_PCTV))


def contrast_with_mean(projected: list[Tensor], temperature: float, ranks: Ranks = ALONE) -> Tensor:
    """The mean over the copies of the contrast between a copy (N, Z) and the mean of all copies; see
    `model.losses.nt_xent`. Scalar float32, this rank's part."""
    mean_NZ = torch.stack(projected).mean(dim=0)
    terms = [nt_xent(copy_NZ, mean_NZ, temperature, ranks) for copy_NZ in projected]
    return torch.stack(terms).mean()
