"""How good a representation is: linear evaluation, nearest neighbour, the paper's semi-supervised protocol.

The last checkpoint counts, and no number of the test set decides anything. Beside the trained encoder stand
an untrained one and plain statistics of the input: what does not beat them has learned nothing worth having.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint import Checkpoint
from model.classify import Score, balanced_subset, linear_evaluation, nearest_neighbour
from model.cpstn import CPSTN
from model.features import Features, encoder_features, statistics_features
from model.pictures import draw_confusion
from model.recipe import FinetuneConfig
from pipeline.loader import Samples, sequential_batches, split_samples
from pipeline.store.publish import publish_bytes
from pipeline.store.shards import Shards

TRAINED, UNTRAINED, STATISTICS = "trained encoder", "untrained encoder", "input statistics"
FINETUNED = "fine-tuned encoder"


@dataclass(frozen=True)
class Evaluation:
    """All scores of one run on one protocol, the run's linear evaluation first."""

    dataset: str
    protocol: str
    label_fraction: float | None
    train_samples: int
    test_samples: int
    scores: tuple[Score, ...]

    @property
    def headline(self) -> Score:
        """The score that the picture shows: semi-supervised where it was asked for, else linear."""
        semi = [score for score in self.scores if score.features == FINETUNED]
        return (semi or list(self.scores))[0]

    def to_table(self) -> dict[str, Any]:
        """Plain data for JSON, accuracies as shares of 1."""
        rows = [
            {
                "protocol": score.protocol,
                "features": score.features,
                "labels": score.labels,
                "top1": score.top1,
                "top5": score.top5,
                "confusion": score.confusion_KK.tolist(),
            }
            for score in self.scores
        ]
        return vars(self) | {"scores": rows}


def evaluate(
    shards: Shards,
    checkpoint: Checkpoint,
    *,
    protocol: str,
    label_fraction: float | None,
    device: torch.device,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Every protocol on every kind of features. `on_stage` hears what is being done.

    Raises ValueError if the shards do not fit the model, or the protocol or the fraction do not exist.
    """
    _check_fit(shards, checkpoint)
    num_classes = len(shards.spec.classes)
    train, test = split_samples(shards, protocol, "train"), split_samples(shards, protocol, "test")
    keys = shards.split(protocol, "train")["key"].tolist()
    labelled = None if label_fraction is None else balanced_subset(train.labels_N, keys, label_fraction)
    trained = checkpoint.build_model().to(device)
    untrained = calibrated(checkpoint.build_model(trained=False).to(device), train, device)

    def features_of(model: CPSTN) -> tuple[Features, Features]:
        return encoder_features(model, train, device), encoder_features(model, test, device)

    scores = []
    features: dict[str, tuple[Features, Features]] = {}
    for name, model in ((TRAINED, trained), (UNTRAINED, untrained)):
        on_stage(f"features of the {name}")
        features[name] = features_of(model)
    on_stage(STATISTICS)
    parents = shards.spec.skeleton.parents
    features[STATISTICS] = (
        statistics_features(train, parents, device),
        statistics_features(test, parents, device),
    )
    for name, (on_train, on_test) in features.items():
        on_stage(f"linear classifier, {name}")
        scores.append(linear_evaluation(on_train, on_test, num_classes, keys, name))
    for name, (on_train, on_test) in features.items():
        scores.append(nearest_neighbour(on_train, on_test, num_classes, name))
    if labelled is not None:
        some_keys = [keys[index] for index in labelled]
        on_stage(f"fine-tuning on {len(labelled)} labels")
        recipe = checkpoint.recipe()
        tuned = finetune(trained, train.take(labelled), num_classes, recipe.finetune, device, recipe.seed)
        on_train, on_test = (
            encoder_features(tuned, train.take(labelled), device),
            encoder_features(tuned, test, device),
        )
        scores.append(
            linear_evaluation(on_train, on_test, num_classes, some_keys, FINETUNED, "semi-supervised")
        )
        for name, (on_train, on_test) in features.items():
            on_stage(f"linear classifier on {len(labelled)} labels, {name}")
            scores.append(linear_evaluation(on_train.take(labelled), on_test, num_classes, some_keys, name))
    return Evaluation(shards.manifest.dataset, protocol, label_fraction, len(train), len(test), tuple(scores))


@torch.no_grad()
def calibrated(model: CPSTN, samples: Samples, device: torch.device) -> CPSTN:
    """The model with batch-normalisation statistics measured on the samples, its weights untouched.

    Without them an untrained network normalises by nothing at all, which would make the comparison too easy.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a plain average over all batches
    model.train()
    for batch in sequential_batches(samples, 64):
        model.encode(batch.original_PCTV.to(device))
    return model.eval()


def finetune(
    model: CPSTN,
    samples: Samples,
    num_classes: int,
    config: FinetuneConfig,
    device: torch.device,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> CPSTN:
    """A copy of the model whose encoder was trained jointly with a linear layer on labelled samples."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model).to(device).train()
    head = nn.Linear(model.representation_size, num_classes).to(device)
    optimiser = torch.optim.Adam([*model.encoder.parameters(), *head.parameters()], lr=config.lr)
    shuffle = np.random.default_rng(seed)
    for _ in range(config.epochs):
        for batch in sequential_batches(samples.take(shuffle.permutation(len(samples))), config.batch_size):
            if batch.num_samples == 1:
                continue  # batch normalisation needs two
            q_PCTV = model.encode(batch.original_PCTV.to(device))
            h_ND = model.represent(q_PCTV, batch.sample_P.to(device), batch.num_samples)
            loss = F.cross_entropy(head(h_ND), batch.labels_N.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        on_epoch()
    return model


def save_evaluation(evaluation: Evaluation, folder: Path, classes: tuple[str, ...]) -> tuple[Path, Path]:
    """Write eval-*.json and the confusion picture beside the run; returns both paths."""
    fraction = "" if evaluation.label_fraction is None else f"-{evaluation.label_fraction:g}"
    stem = f"eval-{evaluation.protocol}{fraction}"
    table, picture = folder / f"{stem}.json", folder / f"{stem}-confusion.png"
    publish_bytes(table, json.dumps(evaluation.to_table(), indent=1).encode() + b"\n")
    shown = evaluation.headline
    what = f"{evaluation.dataset} {evaluation.protocol}: {shown.protocol}, {shown.features}"
    title = f"{what}, top-1 {shown.top1:.1%}"
    draw_confusion(picture, shown.confusion_KK, classes, title=title)
    return table, picture


def _check_fit(shards: Shards, checkpoint: Checkpoint) -> None:
    joints, expected = shards.spec.skeleton.num_joints, checkpoint.spec().skeleton.num_joints
    if joints != expected:
        raise ValueError(
            f"{shards.folder}: skeletons of {joints} joints; the run was trained on {checkpoint.spec().name} "
            f"with {expected}"
        )
