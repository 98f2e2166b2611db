"""Fine-tuning: encoder and a linear layer trained together on labelled samples, as they are stored.

Axes: N sample, P packed present body, C channel, T frame, V joint, D representation, K class.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from model.cpstn import CPSTN
from model.recipe import FinetuneConfig
from model.supervised import new_head
from pipeline.loader import sequential_batches
from pipeline.samples import Samples


def finetune(
    model: CPSTN,
    samples: Samples,
    num_classes: int,
    config: FinetuneConfig,
    device: torch.device,
    seed: int,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> tuple[CPSTN, nn.Linear]:
    """A copy of the model whose encoder was trained jointly with a linear layer, and that layer.

    The paper (4.2.2) gives neither epochs nor rate. The last epoch counts; nothing is held out. Raises
    RuntimeError if weights stop being numbers.
    """
    torch.manual_seed(seed)
    model = copy.deepcopy(model).to(device).train()
    model.whitening = None  # which was fitted to other features
    head = new_head(model, num_classes).to(device)
    optimiser = torch.optim.Adam([*model.encoder.parameters(), *head.parameters()], lr=config.lr)
    shuffle, per_epoch = np.random.default_rng(seed), math.ceil(len(samples) / config.batch_size)
    for epoch in range(config.epochs):
        on_epoch(epoch)
        shuffled = samples.take(shuffle.permutation(len(samples)))
        for index, batch in enumerate(sequential_batches(shuffled, config.batch_size)):
            for group in optimiser.param_groups:
                group["lr"] = config.lr_at(epoch * per_epoch + index, config.epochs * per_epoch)
            x_PCTV, sample_P = batch.original_PCTV.to(device), batch.sample_P.to(device)
            h_ND = model.representation(x_PCTV, sample_P, batch.num_samples)
            loss = F.cross_entropy(head(h_ND), batch.labels_N.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        if not all(bool(weights.isfinite().all()) for weights in (*model.parameters(), *head.parameters())):
            raise RuntimeError(
                f"fine-tuning on {len(samples):,} labels: the weights are no longer numbers after epoch "
                f"{epoch + 1} of {config.epochs}, with finetune.lr = {config.lr:g}; train with a lower one"
            )
    return model.eval(), head
