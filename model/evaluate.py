"""How good a representation is: linear, nearest neighbours, semi-supervised, fine-tuned.

The last checkpoint counts, and no number of the test set decides anything. Beside the trained encoder stand
an untrained one, plain statistics of the input and its raw coordinates: what does not beat them has learned
nothing worth having.

Axes: N sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.bench import Bench
from model.checkpoint import Checkpoint
from model.device import reuse_freed_memory
from model.modes import Modes
from model.question import Parts, Question, check_fit, labelled_sets, read_parts, seen_in_training
from model.recipe import SUPERVISED_OBJECTIVE
from model.result_cache import results_of, ways_to_measure
from model.run import Run
from model.scores import LINEAR, Score
from model.subset import Labelled
from pipeline.store.shards import Shards

# By how much of itself a share of the labels may miss what was asked for before that is told.
OFF_THE_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one run on one protocol.

    pretrained_on: name of the data set that the encoder was trained on.  seen_in_training: how many test
    samples pre-training used, by their keys: not 0 where the run was trained on another protocol than it is
    evaluated on.  copied_N: bool, which test samples hold the very numbers of a training sample.
    shards_name, frames: of the shards that it was evaluated on, their folder's name and the length of every
    sample.  made_from: what the scores belong to: steps, recipe, weights, ways to measure, shards.  fused:
    the weights' digest of each run that it was fused with, by name.  labelled: the sets of labels.
    """

    dataset: str
    title: str
    pretrained_on: str
    protocol: str
    classes: tuple[str, ...]
    train_samples: int
    test_samples: int
    seen_in_training: int
    copied_N: NDArray[np.bool_]
    shards_name: str
    frames: int
    made_from: dict[str, Any]
    fused: dict[str, str]
    labelled: tuple[Labelled, ...]
    keys: tuple[str, ...]
    scores: tuple[Score, ...]


def evaluate(
    shards: Shards,
    checkpoint: Checkpoint,
    question: Question,
    *,
    device: torch.device,
    fuse: Mapping[str, Checkpoint] | None = None,
    keep: Run | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Every mode on every kind of features. `on_stage` hears what is being done, `on_note` what to know of
    the scores beside them.

    fuse: other runs, by name, with which linear evaluation is fused late, too; see `fused_evaluation`.
    keep: the run in whose folder features and results are kept; what lies there is not done again.
    Raises ValueError if the shards do not fit a model, or protocol, fraction or id file do not fit them.
    """
    reuse_freed_memory(device)
    others, protocol = dict(fuse or {}), question.protocol
    _check(shards, checkpoint, question, others)
    for note in _notes_on_runs(shards, checkpoint, question, others):
        on_note(note)
    on_stage("reading the samples")
    parts = read_parts(shards, protocol)
    labelled = labelled_sets(question, parts)
    for note in _notes_on_labels(labelled, parts):
        on_note(note)
    store = results_of(keep.results, shards, checkpoint, parts.train, device) if keep else None
    modes = Modes(Bench(shards, checkpoint, parts, device, keep, on_stage), store)
    scores = modes.scores(question, labelled, others)
    if store and store.reused:
        on_note(
            f"{store.reused} of {store.reused + store.measured} results were there already; without "
            f"{store.kept.folder} all are measured anew"
        )
    runs = [checkpoint, *others.values()]
    seen = seen_in_training(shards, runs, protocol)
    if seen:
        labels_too = (
            "with" if any(run.recipe().objective == SUPERVISED_OBJECTIVE for run in runs) else "without"
        )
        on_note(f"training saw {seen:,} of {len(parts.test):,} test samples, {labels_too} their labels")
    return Evaluation(
        dataset=shards.manifest.dataset,
        title=shards.spec.title,
        pretrained_on=checkpoint.spec().name,
        protocol=protocol,
        classes=tuple(shards.spec.classes),
        train_samples=len(parts.train),
        test_samples=len(parts.test),
        seen_in_training=seen,
        copied_N=shards.copied(protocol),
        shards_name=shards.location.name,
        frames=shards.source.shape[3],
        made_from={
            "step": checkpoint.step,
            "steps": checkpoint.steps,
            "recipe": checkpoint.recipe().to_table(),
            "weights": checkpoint.weights_digest,
            "ways": ways_to_measure(),
            "trained_on": checkpoint.manifest,
            "evaluated_on": shards.manifest.digest,
        },
        fused={name: other.weights_digest for name, other in others.items()},
        labelled=tuple(labelled),
        keys=tuple(parts.keys),
        scores=tuple(scores),
    )


def _check(
    shards: Shards, checkpoint: Checkpoint, question: Question, others: Mapping[str, Checkpoint]
) -> None:
    """Raises ValueError if a run does not fit the shards, or the question has no use for the other runs."""
    if others and LINEAR not in question.modes:
        raise ValueError(f"linear classifiers are what is fused; add {LINEAR} to the modes")
    check_fit(shards, checkpoint)
    for name, other in others.items():
        check_fit(shards, other, name)


def _notes_on_runs(
    shards: Shards, checkpoint: Checkpoint, question: Question, others: Mapping[str, Checkpoint]
) -> Iterator[str]:
    """What to know of the runs before they are evaluated."""
    if checkpoint.step < checkpoint.steps:
        yield f"the run is unfinished, at step {checkpoint.step} of {checkpoint.steps}"
    for name, other in others.items():
        if other.manifest != checkpoint.manifest:
            yield f"{name} was trained on other shards than the run; here it encodes {shards.location}"
    if question.whiten and checkpoint.recipe().model.whitened:
        yield "what the run's encoder gives is whitened by its recipe (model.whitened); here once more"


def _notes_on_labels(labelled: Sequence[Labelled], parts: Parts) -> Iterator[str]:
    """Of shares that are others than were asked for."""
    num_classes = len(np.unique(parts.train.labels_N))
    for labels in labelled:
        share = len(labels.sets[0]) / len(parts.train)
        used = f"{len(labels.sets[0]):,} of {len(parts.train):,} labels ({100 * share:.3g} %)"
        if labels.topped_up:
            yield (
                f"a share of {labels.fraction:g} leaves {labels.topped_up} of {num_classes} classes without "
                f"a label; one of every class is used at least, in all {used}"
            )
        elif abs(share - labels.fraction) > OFF_THE_SHARE * labels.fraction:
            yield f"a share of {labels.fraction:g}, rounded in each class to whole samples, is {used}"
