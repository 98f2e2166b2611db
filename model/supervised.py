"""Supervised training from scratch, the baseline of the paper's Table 4: same encoder, linear layer, labels.

Axes: N sample, P packed present body, C channel, T frame, V joint, D representation, K class.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.cpstn import CPSTN
from model.device import mixed_precision
from model.features import extracted
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.share import Share, seed_dropout
from model.subset import balanced_subset
from pipeline.batch import Batch
from pipeline.samples import Samples, split_samples
from pipeline.store.shards import Shards


def labelled_samples(shards: Shards, recipe: Recipe) -> Samples:
    """The training samples whose labels a supervised recipe uses: of every class the same share."""
    protocol = recipe.protocol_on(shards.spec)
    samples = split_samples(shards, protocol, "train")
    return samples.take(_labelled_places(shards.split(protocol, "train"), recipe))


def labelled_keys(shards: Shards, recipe: Recipe) -> list[str]:
    """Their keys."""
    table = shards.split(recipe.protocol_on(shards.spec), "train")
    keys: list[str] = table["key"].iloc[_labelled_places(table, recipe)].tolist()
    return keys


def _labelled_places(table: pd.DataFrame, recipe: Recipe) -> NDArray[np.int64]:
    """Where they are in the table of a protocol's training samples."""
    return balanced_subset(table["label"].to_numpy(), table["key"].tolist(), recipe.label_fraction)


class Supervised(nn.Module):
    """Cross-entropy of a linear layer on the representation h, mean over the batch on all ranks."""

    loss_names = ("cross_entropy", "total")

    def __init__(self, model: CPSTN, recipe: Recipe, num_classes: int, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.model = model
        self.head = new_head(model, num_classes)
        self.recipe = recipe
        self.ranks = ranks

    def backward(self, share: Share, step: int) -> Tensor:
        """Add the batch's gradients to those of the weights. The losses, detached: this rank's share of them,
        in the order of `loss_names`."""
        whole = self.ranks.world * sum(batch.num_samples for batch in share.parts)
        done = []
        for index, batch in enumerate(share.parts):
            seed_dropout(self.recipe.seed, step, self.ranks, index, len(share.parts))
            scores_NK = self.head(self._represent(batch))
            loss = F.cross_entropy(scores_NK, batch.labels_N, reduction="sum") / whole
            loss.backward()
            done.append(loss.detach())
        return torch.stack(done).sum().repeat(2)

    def _represent(self, batch: Batch) -> Tensor:
        x_PCTV = batch.views[0].x_PCTV if batch.views else batch.original_PCTV
        with mixed_precision(self.recipe.precision, x_PCTV.device):
            h_ND = self.model.representation(x_PCTV, batch.sample_P, batch.num_samples)
        return h_ND.float()


def new_head(model: CPSTN, num_classes: int) -> nn.Linear:
    """The linear layer from h to the classes' scores; weights from torch's generator."""
    return nn.Linear(model.representation_size, num_classes)


@torch.no_grad()
def head_scores(model: CPSTN, head: nn.Linear, samples: Samples, device: torch.device) -> Tensor:
    """Scores (N, K) of samples that can be read in any order, as stored; the model is left in eval mode."""
    model.eval()

    def scores(x_PCTV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        scores_NK: Tensor = head(model.representation(x_PCTV, sample_P, num_samples).float())
        return scores_NK

    return torch.cat(list(extracted(scores, samples, device)))
