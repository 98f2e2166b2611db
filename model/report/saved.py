"""Evaluations as `eval` left them beside a run, read from JSON and checked once.

Axes: K class, true or predicted.
"""

import json
import math
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation_file import FORMAT_VERSION
from model.published import is_comparable, same_split
from model.report.datasets import named_protocol
from model.scores import COORDINATES, INPUT_STATISTICS, LINEAR, SUPERVISED, TRAINED, headlines_of


@dataclass(frozen=True)
class Spread:
    """A share of 1 over repetitions. deviation: None where there was only one."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, eq=False)
class SavedScore:
    """One row of an evaluation.

    features: what was classified.  k: neighbours, None for other modes.  label_fraction: share of the
    training labels that was asked for.  labels, share: how many that came to, and their share of the training
    samples: more than was asked for where that is less than one a class.  subset: the id files that name
    these labels, None where they were drawn.  top1_without_copies: of the test samples that are no copies of
    training samples, None where none is, or all are.  top5, macro_f1: None where the mode has none.
    p_untrained: how likely chance alone would set the encoder as far apart from the same untrained, None
    where that was not asked; see `model.versus`.
    per_class_K: mean accuracy of each class, NaN without test samples.  confusion_KK: int64, true class down,
    predicted across, summed over the seeds.
    """

    mode: str
    features: str
    k: int | None
    label_fraction: float
    labels: int
    share: float
    seeds: int
    top1: Spread
    top1_without_copies: Spread | None
    top5: Spread | None
    macro_f1: Spread | None
    p_untrained: float | None
    subset: str | None
    per_class_K: NDArray[np.float64]
    confusion_KK: NDArray[np.int64]

    def test_counts(self) -> NDArray[np.int64]:
        """(K,) test samples of every class."""
        counts_K: NDArray[np.int64] = self.confusion_KK.sum(axis=1) // max(self.seeds, 1)
        return counts_K

    @property
    def of_trained(self) -> bool:
        """Whether it is of the trained encoder's own features, fine-tuned or not."""
        return self.features == TRAINED

    @property
    def of_network(self) -> bool:
        """Whether a network has part in it: what none has differs between runs by their shards only."""
        return not self.features.startswith((INPUT_STATISTICS, COORDINATES))


@dataclass(frozen=True, eq=False)
class SavedEvaluation:
    """All scores of one run on one data set and protocol.

    title: the data set's.  pretrained_on: the data set of the training; another one is a transfer.
    copied: how many test samples hold the very numbers of a training sample.
    shards_name, frames: of the shards, their folder's name and the length of every sample.  evaluated_on:
    digest of their manifest.
    step, steps: of the checkpoint that was evaluated, and of the whole training.  recipe: nested, as in TOML.
    """

    dataset: str
    title: str
    pretrained_on: str
    protocol: str
    classes: tuple[str, ...]
    train_samples: int
    test_samples: int
    seen_in_training: int
    copied: int
    shards_name: str
    frames: int
    evaluated_on: str
    step: int
    steps: int
    recipe: dict[str, Any]
    scores: tuple[SavedScore, ...]

    @property
    def headlines(self) -> list[SavedScore]:
        """The scores that may stand for the run, the first before all; where none may, the first score."""
        return headlines_of(self.scores, attrgetter("mode", "features", "labels")) or [self.scores[0]]

    @property
    def is_comparable(self) -> bool:
        """Whether the paper's figures, if any, are of as many test samples."""
        return is_comparable(self.dataset, self.protocol, self.test_samples)

    def linear(self, features: str, labels: int) -> SavedScore | None:
        """The linear evaluation of these features with so many labels."""
        wanted = LINEAR, features, labels
        return next((s for s in self.scores if (s.mode, s.features, s.labels) == wanted), None)


def saved_evaluations(folder: Path) -> tuple[list[SavedEvaluation], list[str]]:
    """The evaluations in a run's folder by name of file, and what is wrong with unusable files."""
    found, problems = [], []
    for path in sorted(folder.glob("eval-*.json")):
        try:
            found.append(read_evaluation(path))
        except ValueError as error:
            problems.append(str(error))
    return found, problems


def read_evaluation(path: Path) -> SavedEvaluation:
    """One file of `eval`. Raises ValueError if it is damaged or of another version."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        found = table.get("version", 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: damaged: not an evaluation's JSON") from None
    if found != FORMAT_VERSION:
        raise ValueError(f"{path}: an evaluation of version {found}; expected {FORMAT_VERSION}")
    try:
        return _evaluation(table)
    except KeyError as error:
        raise ValueError(f"{path}: the key {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: a value is not what it should be: {error}") from None


def _evaluation(table: dict[str, Any]) -> SavedEvaluation:
    classes, made_from = tuple(str(name) for name in table["classes"]), table["made_from"]
    train_samples, recipe = int(table["train_samples"]), dict(made_from["recipe"])
    dataset, protocol = str(table["dataset"]), str(table["protocol"])
    shards = table["shards"]
    own = named_protocol(str(table["pretrained_on"]), str(recipe.get("protocol", "")))
    # A supervised run's own layer learnt from labels of the shards and protocol that the run was trained by.
    same_shards = made_from["trained_on"] == made_from["evaluated_on"]
    same_samples = same_shards and same_split(dataset, own, protocol)
    scores = tuple(
        _score(row, len(classes), None if row["mode"] == SUPERVISED and not same_samples else train_samples)
        for row in table["scores"]
    )
    if not scores:
        raise ValueError("no scores")
    return SavedEvaluation(
        dataset=dataset,
        title=str(table["title"]),
        pretrained_on=str(table["pretrained_on"]),
        protocol=protocol,
        classes=classes,
        train_samples=train_samples,
        test_samples=int(table["test_samples"]),
        seen_in_training=int(table["seen_in_training"]),
        copied=int(table["copied"]),
        shards_name=str(shards["name"]),
        frames=int(shards["frames"]),
        evaluated_on=str(made_from["evaluated_on"]),
        step=int(made_from["step"]),
        steps=int(made_from["steps"]),
        recipe=recipe,
        scores=scores,
    )


def _score(row: dict[str, Any], num_classes: int, train_samples: int | None) -> SavedScore:
    """train_samples: of which the labels are a share; None where that is not known."""
    confusion_KK = np.array(row["confusion"], np.int64)
    if confusion_KK.shape != (num_classes, num_classes) or confusion_KK.min() < 0:
        raise ValueError(f"confusion of shape {confusion_KK.shape}; expected counts of {num_classes} classes")
    per_class_K = np.array([math.nan if share is None else _share(share) for share in row["per_class"]])
    if len(per_class_K) != num_classes:
        raise ValueError(f"per_class has {len(per_class_K)} entries for {num_classes} classes")
    labels, asked = int(row["labels"]), _share(row["label_fraction"])
    if train_samples is not None and labels > train_samples:
        raise ValueError(f"{labels:,} labels of {train_samples:,} training samples")
    return SavedScore(
        mode=str(row["mode"]),
        features=str(row["features"]),
        k=None if row["k"] is None else int(row["k"]),
        label_fraction=asked,
        labels=labels,
        share=asked if train_samples is None else labels / train_samples,
        seeds=int(row["seeds"]),
        top1=_spread(row["top1"]),
        top1_without_copies=_spread_or_none(row["top1_without_copies"]),
        top5=_spread_or_none(row["top5"]),
        macro_f1=_spread_or_none(row["macro_f1"]),
        p_untrained=None if row["versus_untrained"] is None else _share(row["versus_untrained"]["p"]),
        subset=None if row.get("subset") is None else str(row["subset"]),
        per_class_K=per_class_K,
        confusion_KK=confusion_KK,
    )


def _spread_or_none(table: dict[str, Any] | None) -> Spread | None:
    return None if table is None else _spread(table)


def _spread(table: dict[str, Any]) -> Spread:
    deviation = None if table["deviation"] is None else _share(table["deviation"])
    return Spread(_share(table["mean"]), deviation)


def _share(value: Any) -> float:
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{value} where a share of 1 belongs")
    return share
