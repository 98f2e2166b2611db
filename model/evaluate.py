"""How good a representation is: linear evaluation, nearest neighbour, the paper's semi-supervised protocol.

The last checkpoint counts, and no number of the test set decides anything. Beside the trained encoder stand
an untrained one and plain statistics of the input: what does not beat them has learned nothing worth having.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from model.checkpoint import Checkpoint
from model.classify import Score, balanced_subset, linear_evaluation, nearest_neighbour, scored
from model.cpstn import CPSTN
from model.device import reuse_freed_memory
from model.features import (
    Extractor,
    Features,
    encoder_extractor,
    encoder_features,
    extract_features,
    statistics_extractor,
)
from model.pictures import draw_confusion
from model.recipe import FinetuneConfig, Recipe
from model.supervised import head_scores, labelled_samples
from model.whitening import fit_whitening, join, view_scatter
from pipeline.loader import Samples, in_any_order, sequential_batches, split_samples
from pipeline.store.publish import publish_bytes
from pipeline.store.shards import Shards

TRAINED, UNTRAINED, STATISTICS = "trained encoder", "untrained encoder", "input statistics"
# Beside whitened statistics; chosen with the changes of model.whitening.
ENCODER_WEIGHT = 0.3
FINETUNED, FROM_SCRATCH = "trained encoder, fine-tuned", "untrained encoder, fine-tuned"
FROM_LABELS = "encoder and linear layer"

# Of the training and of the test samples.
Pair = tuple[Features, Features]


@dataclass(frozen=True)
class Evaluation:
    """All scores of one run on one protocol, the run's linear evaluation first.

    seen_in_training: how many test samples pre-training saw, without labels: not 0 where the run was trained
    on another protocol than it is evaluated on.  made_from: what the scores belong to: steps, recipe, shards.
    """

    dataset: str
    protocol: str
    label_fraction: float | None
    train_samples: int
    test_samples: int
    seen_in_training: int
    made_from: dict[str, Any]
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


@dataclass(frozen=True)
class Parts:
    """The training and test samples of a protocol, with the training samples' keys."""

    train: Samples
    test: Samples
    keys: list[str]
    num_classes: int

    def with_labels(self, chosen: NDArray[np.int64]) -> "Parts":
        """The same with these training samples only."""
        return replace(self, train=self.train.take(chosen), keys=[self.keys[index] for index in chosen])


def evaluate(
    shards: Shards,
    checkpoint: Checkpoint,
    *,
    protocol: str,
    label_fraction: float | None,
    device: torch.device,
    whiten: bool = False,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Every protocol on every kind of features. `on_stage` hears what is being done.

    whiten: also on the features whitened by the views' scatter, and on encoder and statistics joined.
    Raises ValueError if the shards do not fit the model, or the protocol or the fraction do not exist.
    """
    reuse_freed_memory(device)
    _check_fit(shards, checkpoint)
    keys = shards.split(protocol, "train")["key"].tolist()
    on_stage("reading the samples")
    train, test = in_any_order(*(split_samples(shards, protocol, part) for part in ("train", "test")))
    parts = Parts(train, test, keys, len(shards.spec.classes))
    labelled = None
    if label_fraction is not None:
        labelled = balanced_subset(parts.train.labels_N, keys, label_fraction)
    models = {
        TRAINED: checkpoint.build_model().to(device),
        UNTRAINED: calibrated(checkpoint.build_model(trained=False).to(device), parts.train, device),
    }
    extractors = {name: encoder_extractor(model.eval()) for name, model in models.items()}
    extractors[STATISTICS] = statistics_extractor(shards.spec.skeleton.parents)
    features = all_features(extractors, parts, device, on_stage)
    if whiten:
        features |= whitened_features(extractors, features, parts, device, on_stage)
    scores = frozen_scores(features, parts, on_stage)
    scores += supervised_scores(shards, checkpoint, models[TRAINED], parts, device)
    if labelled is not None:
        few = parts.with_labels(labelled)
        few_features = {name: (train.take(labelled), test) for name, (train, test) in features.items()}
        scores += frozen_scores(few_features, few, on_stage)
        scores += semi_supervised_scores(models, few, checkpoint.recipe(), device, on_stage)
    return Evaluation(
        shards.manifest.dataset,
        protocol,
        label_fraction,
        len(parts.train),
        len(parts.test),
        _seen_in_training(shards, checkpoint, protocol),
        {
            "step": checkpoint.step,
            "steps": checkpoint.steps,
            "recipe": checkpoint.recipe().to_table(),
            "trained_on": checkpoint.manifest,
            "evaluated_on": shards.manifest.digest,
        },
        tuple(scores),
    )


def all_features(
    extractors: dict[str, Extractor],
    parts: Parts,
    device: torch.device,
    on_stage: Callable[[str], None],
) -> dict[str, Pair]:
    """The features that each extractor makes, by its name."""
    features = {}
    for name, extractor in extractors.items():
        on_stage(f"features: {name}")
        train, test = (extract_features(extractor, part, device) for part in (parts.train, parts.test))
        features[name] = train, test
    return features


def whitened_features(
    extractors: dict[str, Extractor],
    features: dict[str, Pair],
    parts: Parts,
    device: torch.device,
    on_stage: Callable[[str], None],
) -> dict[str, Pair]:
    """All features whitened by the views' scatter, and each encoder's joined with the input's statistics.

    Learnt on the training samples, without labels.
    """
    maps = {}
    for name, extractor in extractors.items():
        on_stage(f"scatter of the views: {name}")
        maps[name] = fit_whitening(features[name][0], view_scatter(extractor, parts.train, device))

    def through(name: str, part: int, weight: float = 1.0) -> Features:
        return maps[name].apply(features[name][part], weight)

    found = {f"{name}, whitened": (through(name, 0), through(name, 1)) for name in maps}
    for name in (TRAINED, UNTRAINED):
        train, test = (
            join(through(STATISTICS, part), through(name, part, ENCODER_WEIGHT)) for part in (0, 1)
        )
        found[f"{name} and {STATISTICS}, whitened"] = train, test
    return found


def frozen_scores(features: dict[str, Pair], parts: Parts, on_stage: Callable[[str], None]) -> list[Score]:
    """Linear evaluation and nearest neighbour of all features."""
    scores = []
    for name, (train, test) in features.items():
        on_stage(f"linear classifier on {len(parts.train):,} labels, {name}")
        scores.append(linear_evaluation(train, test, parts.num_classes, parts.keys, name))
    for name, (train, test) in features.items():
        scores.append(nearest_neighbour(train, test, parts.num_classes, name))
    return scores


def supervised_scores(
    shards: Shards, checkpoint: Checkpoint, model: CPSTN, parts: Parts, device: torch.device
) -> list[Score]:
    """The classifier that a supervised run was trained with, as it is; no row for other runs."""
    head = checkpoint.build_head(model)
    if head is None:
        return []
    used = labelled_samples(shards, checkpoint.recipe())
    scores_NK = head_scores(model, head.to(device), parts.test, device)
    labels_N = torch.tensor(parts.test.labels_N, device=device)
    return [scored(scores_NK, labels_N, "supervised", FROM_LABELS, len(used))]


def semi_supervised_scores(
    models: dict[str, CPSTN],
    few: Parts,
    recipe: Recipe,
    device: torch.device,
    on_stage: Callable[[str], None],
) -> list[Score]:
    """The paper's protocol (4.2.2): fine-tune, freeze, fit a linear classifier on the same labels."""
    scores = []
    epochs = recipe.finetune.epochs
    for name, model in zip((FINETUNED, FROM_SCRATCH), models.values(), strict=True):

        def say(epoch: int, name: str = name) -> None:
            on_stage(f"fine-tuning on {len(few.train):,} labels, {name}, epoch {epoch + 1} of {epochs}")

        tuned = finetune(
            model, few.train, few.num_classes, recipe.finetune, device, recipe.seed, on_epoch=say
        )
        train, test = encoder_features(tuned, few.train, device), encoder_features(tuned, few.test, device)
        scores.append(linear_evaluation(train, test, few.num_classes, few.keys, name, "semi-supervised"))
    return scores


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
    on_epoch: Callable[[int], None] = lambda _: None,
) -> CPSTN:
    """A copy of the model whose encoder was trained jointly with a linear layer on labelled samples."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model).to(device).train()
    head = nn.Linear(model.representation_size, num_classes).to(device)
    optimiser = torch.optim.Adam([*model.encoder.parameters(), *head.parameters()], lr=config.lr)
    shuffle = np.random.default_rng(seed)
    for epoch in range(config.epochs):
        on_epoch(epoch)
        for batch in sequential_batches(samples.take(shuffle.permutation(len(samples))), config.batch_size):
            q_PCTV = model.encode(batch.original_PCTV.to(device))
            h_ND = model.represent(q_PCTV, batch.sample_P.to(device), batch.num_samples)
            loss = F.cross_entropy(head(h_ND), batch.labels_N.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return model


def save_evaluation(evaluation: Evaluation, folder: Path, classes: tuple[str, ...]) -> tuple[Path, Path]:
    """Write eval-*.json and the confusion picture beside the run; returns both paths.

    The picture leaves out classes that are neither tested nor predicted.
    """
    fraction = "" if evaluation.label_fraction is None else f"-{evaluation.label_fraction:g}"
    stem = f"eval-{evaluation.protocol}{fraction}"
    table, picture = folder / f"{stem}.json", folder / f"{stem}-confusion.png"
    publish_bytes(table, json.dumps(evaluation.to_table(), indent=1).encode() + b"\n")
    shown = evaluation.headline
    what = f"{evaluation.dataset} {evaluation.protocol}: {shown.protocol}, {shown.features}"
    title = f"{what}, top-1 {shown.top1:.1%}"
    occurring = np.flatnonzero(shown.confusion_KK.sum(0) + shown.confusion_KK.sum(1))
    counts_KK = shown.confusion_KK[np.ix_(occurring, occurring)]
    draw_confusion(picture, counts_KK, [classes[label] for label in occurring], title=title)
    return table, picture


def _check_fit(shards: Shards, checkpoint: Checkpoint) -> None:
    joints, expected = shards.spec.skeleton.num_joints, checkpoint.spec().skeleton.num_joints
    if joints != expected:
        raise ValueError(
            f"{shards.location}: skeletons of {joints} joints; the run was trained on "
            f"{checkpoint.spec().name} with {expected}"
        )


def _seen_in_training(shards: Shards, checkpoint: Checkpoint, protocol: str) -> int:
    """How many of a protocol's test samples are among those that the run was trained on, by key."""
    trained_on = checkpoint.recipe().protocol or shards.spec.default_protocol
    training_keys = set(shards.split(trained_on, "train")["key"])
    return len(training_keys & set(shards.split(protocol, "test")["key"]))
