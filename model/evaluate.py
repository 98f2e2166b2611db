"""How good a representation is: linear, nearest neighbours, semi-supervised, fine-tuned.

The last checkpoint counts, and no number of the test set decides anything. Beside the trained encoder stand
an untrained one, plain statistics of the input and its raw coordinates: what does not beat them has learned
nothing worth having.

Axes: N sample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.bench import Bench, whitened_features
from model.checkpoint import Checkpoint
from model.classify import fused_evaluation, linear_evaluation, nearest_neighbours
from model.cpstn import CPSTN
from model.device import reuse_freed_memory
from model.feature_cache import identity_of_features
from model.features import Pair, encoder_features
from model.finetune import finetune
from model.question import Question, check_fit, labelled_sets, read_parts, seen_in_training
from model.result_cache import ResultCache, results_of, ways_to_measure
from model.run import Run
from model.scores import (
    COORDINATES,
    ENCODERS,
    FINETUNE,
    FROM_LABELS,
    KNN,
    LINEAR,
    SEMI,
    SUPERVISED,
    Result,
    Score,
    result_of_scores,
)
from model.subset import Labelled
from model.supervised import head_scores
from pipeline.store.shards import Shards

NEIGHBOURS = (1, 20)
# Indices of training samples, those whose labels are shown.
Chosen = NDArray[np.int64]


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
    others = dict(fuse or {})
    if others and LINEAR not in question.modes:
        raise ValueError(f"linear classifiers are what is fused; add {LINEAR} to the modes")
    runs = [checkpoint, *others.values()]
    check_fit(shards, checkpoint)
    for name, other in others.items():
        check_fit(shards, other, name)
    if checkpoint.step < checkpoint.steps:
        on_note(f"the run is unfinished, at step {checkpoint.step} of {checkpoint.steps}")
    for name, other in others.items():
        if other.manifest != checkpoint.manifest:
            on_note(f"{name} was trained on other shards than the run; here it encodes {shards.location}")
    if question.whiten and checkpoint.recipe().model.whitened:
        on_note("what the run's encoder gives is whitened by its recipe (model.whitened); here once more")
    spec, protocol = shards.spec, question.protocol
    on_stage("reading the samples")
    parts = read_parts(shards, protocol)
    labelled = labelled_sets(question, parts)
    for labels in labelled:
        if labels.topped_up:
            on_note(
                f"a share of {labels.fraction:g} leaves {labels.topped_up} of {len(spec.classes)} classes "
                f"without a label; one of every class is used at least, in all {len(labels.sets[0]):,} of "
                f"{len(parts.train):,}"
            )
    store = results_of(keep.results, shards, checkpoint, parts.train, device) if keep else None
    modes = _Modes(Bench(shards, checkpoint, parts, device, keep, on_stage), store)
    scores: list[Score] = []
    if LINEAR in question.modes or KNN in question.modes:
        scores += modes.frozen_scores(labelled, question)
        if others:
            scores += modes.scores_fused_with(others, labelled)
    scores += modes.supervised_scores()
    if SEMI in question.modes or FINETUNE in question.modes:
        scores += modes.finetuned_scores(labelled, question)
    if store and store.reused:
        on_note(
            f"{store.reused} of {store.reused + store.measured} results were there already; without "
            f"{store.kept.folder} all are measured anew"
        )
    seen = seen_in_training(shards, runs, protocol)
    if seen:
        labels_too = "with" if any(run.recipe().objective == SUPERVISED for run in runs) else "without"
        on_note(f"training saw {seen:,} of {len(parts.test):,} test samples, {labels_too} their labels")
    return Evaluation(
        dataset=shards.manifest.dataset,
        title=spec.title,
        pretrained_on=checkpoint.spec().name,
        protocol=protocol,
        classes=tuple(spec.classes),
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


@dataclass(frozen=True, eq=False)
class _Modes:
    """Every mode on a bench. store: what earlier evaluations measured; None where nothing is kept."""

    bench: Bench
    store: ResultCache | None

    def frozen_scores(self, labelled: Sequence[Labelled], question: Question) -> list[Score]:
        """Linear evaluation and nearest neighbours of all features, on all sets of labels.

        One kind of features after the other, and forgotten then, but for those that are to be whitened: of
        NTU-120 each is gigabytes.
        """
        of_kinds: list[list[Score]] = []
        kept: dict[str, Callable[[], Pair]] = {}
        for name, extractor in self.bench.extractors.items():
            kept[name] = cache(partial(self.bench.pair, name, extractor))
            of_kinds.append(self._frozen(name, kept[name], labelled, question.modes))
            if name == COORDINATES or not question.whiten:
                del kept[name]
        if question.whiten:
            bench = self.bench
            extractors = {name: bench.extractors[name] for name in kept}
            whitened = whitened_features(extractors, kept, bench.parts, bench.device, bench.on_stage)
            of_kinds += [
                self._frozen(name, cache(pair), labelled, question.modes) for name, pair in whitened.items()
            ]
        # Of each way to classify all kinds of features in turn.
        return [score for of_way in zip(*of_kinds, strict=True) for score in of_way]

    def _frozen(
        self, name: str, pair: Callable[[], Pair], labelled: Sequence[Labelled], modes: Sequence[str]
    ) -> list[Score]:
        """Of one kind of features, which are asked for where a result is not there already."""
        classes = self.bench.parts.num_classes

        def classified(chosen: Chosen) -> list[Result]:
            train, test = pair()
            return [linear_evaluation(train.take(chosen), test, classes, self._performances(chosen))]

        def voted(chosen: Chosen) -> list[Result]:
            train, test = pair()
            return nearest_neighbours(train.take(chosen), test, classes, NEIGHBOURS)

        scores = []
        for labels in labelled:
            count = len(labels.sets[0])
            if LINEAR in modes:
                self.bench.on_stage(f"linear classifier on {count:,} labels, {name}")
                (results,) = self._results({"mode": LINEAR, "features": name}, labels.sets, classified)
                scores.append(Score(LINEAR, name, None, labels.fraction, count, results, labels.subset))
            if KNN in modes:
                self.bench.on_stage(f"nearest neighbours among {count:,} labels, {name}")
                what = {"mode": KNN, "features": name, "numbers": NEIGHBOURS}
                for k, results in zip(NEIGHBOURS, self._results(what, labels.sets, voted), strict=True):
                    scores.append(Score(KNN, name, k, labels.fraction, count, results, labels.subset))
        return scores

    def supervised_scores(self) -> list[Score]:
        """The classifier that a supervised run was trained with, as it is: a row, where the run has one and
        these shards have its classes."""
        recipe, classes = self.bench.checkpoint.recipe(), self.bench.shards.spec.classes
        if recipe.objective != SUPERVISED or self.bench.checkpoint.spec().classes != classes:
            return []
        head = self.bench.checkpoint.build_head(self.bench.trained)
        assert head is not None
        result = self._head_result(self.bench.trained, head.to(self.bench.device))
        share, count = recipe.label_fraction, self.bench.checkpoint.samples
        return [Score(SUPERVISED, FROM_LABELS, None, share, count, (result,))]

    def finetuned_scores(self, labelled: Sequence[Labelled], question: Question) -> list[Score]:
        """Fine-tuning end to end, and the paper's semi-supervised protocol (4.2.2): fine-tune, freeze, fit a
        linear classifier on the same labels. Both from the same fine-tuned encoder."""
        rows: dict[str, list[Score]] = {SEMI: [], FINETUNE: []}
        for labels in labelled:
            wanted = [mode for mode in (SEMI, FINETUNE) if mode in question.modes]
            if labels.fraction == 1:
                wanted = [mode for mode in wanted if mode == FINETUNE]
            # All labels, and sets from files, are repeated as they are: then fine-tuning alone is random.
            sets = labels.sets if labels.drawn else labels.sets * question.seeds
            for name in ENCODERS if wanted else ():
                found: dict[str, list[Result]] = {mode: [] for mode in wanted}
                for seed, chosen in enumerate(sets):
                    # Once for both modes, where a result of either is not there already.
                    tuned = cache(partial(self._finetuned, name, seed, wanted, chosen))
                    for mode in wanted:
                        what = {"mode": mode, "features": name, "seed": seed}
                        ((result,),) = self._results(what, [chosen], partial(_of_mode, tuned, mode))
                        found[mode].append(result)
                for mode in wanted:
                    results, count = tuple(found[mode]), len(sets[0])
                    row = Score(mode, name, None, labels.fraction, count, results, labels.subset)
                    rows[mode].append(row)
        return rows[SEMI] + rows[FINETUNE]

    def _finetuned(self, name: str, seed: int, modes: Sequence[str], chosen: Chosen) -> dict[str, Result]:
        """The results of one fine-tuned copy, by these modes."""
        recipe, parts, device = self.bench.checkpoint.recipe(), self.bench.parts, self.bench.device
        few, epochs = parts.train.take(chosen), recipe.finetune.epochs

        def say(epoch: int) -> None:
            self.bench.on_stage(
                f"fine-tuning on {len(few):,} labels, {name}, seed {seed}, epoch {epoch + 1} of {epochs}"
            )

        untuned, config, drawn = self.bench.model(name), recipe.finetune, recipe.seed + seed
        tuned, head = finetune(untuned, few, parts.num_classes, config, device, drawn, on_epoch=say)
        results = {}
        if FINETUNE in modes:
            results[FINETUNE] = self._head_result(tuned, head)
        if SEMI in modes:
            train, test = (encoder_features(tuned, part, device) for part in (few, parts.test))
            results[SEMI] = linear_evaluation(train, test, parts.num_classes, self._performances(chosen))
        return results

    def _head_result(self, model: CPSTN, head: nn.Linear) -> Result:
        test, device = self.bench.parts.test, self.bench.device
        labels_N = torch.tensor(test.labels_N, device=device)
        return result_of_scores(head_scores(model, head, test, device), labels_N)

    def scores_fused_with(
        self, others: Mapping[str, Checkpoint], labelled: Sequence[Labelled]
    ) -> list[Score]:
        """Linear evaluation of this run's and the others' encoders together, trained and untrained."""
        benches = [self.bench, *(replace(self.bench, checkpoint=other) for other in others.values())]
        train = self.bench.parts.train
        behind_names = [identity_of_features(self.bench.shards, other, train) for other in others.values()]
        scores = []
        for kind in ENCODERS:
            pairs = [bench.pair(kind, bench.encoders[kind]) for bench in benches]
            what = {"mode": LINEAR, "features": kind, "fused": behind_names}
            scores += self._fused(kind, what, pairs, tuple(others), labelled)
        return scores

    def _fused(
        self,
        kind: str,
        what: Mapping[str, Any],
        pairs: Sequence[Pair],
        others: tuple[str, ...],
        labelled: Sequence[Labelled],
    ) -> list[Score]:
        """Of one kind of encoders. what: see `ResultCache.results`."""
        name = f"{kind}s, fused with {' + '.join(others)}"

        def classified(chosen: Chosen) -> list[Result]:
            few = [(train.take(chosen), test) for train, test in pairs]
            return [fused_evaluation(few, self.bench.parts.num_classes, self._performances(chosen))]

        scores = []
        for labels in labelled:
            count = len(labels.sets[0])
            self.bench.on_stage(f"linear classifiers on {count:,} labels, {name}")
            (results,) = self._results(what, labels.sets, classified)
            scores.append(Score(LINEAR, name, None, labels.fraction, count, results, labels.subset, others))
        return scores

    def _results(
        self, what: Mapping[str, Any], sets: Sequence[Chosen], measure: Callable[[Chosen], list[Result]]
    ) -> list[tuple[Result, ...]]:
        """What `measure` gives for each set of labels, or gave before; of each of its results those of all
        sets. what: see `ResultCache.results`."""
        store, train, test = self.store, self.bench.parts.train, self.bench.parts.test
        if store is None:
            found = [measure(chosen) for chosen in sets]
        else:
            found = [
                store.results(what, train.take(chosen), test, partial(measure, chosen)) for chosen in sets
            ]
        return list(zip(*found, strict=True))

    def _performances(self, chosen: Chosen) -> list[str]:
        return [self.bench.parts.performances[index] for index in chosen]


def _of_mode(tuned: Callable[[], Mapping[str, Result]], mode: str, _: Chosen) -> list[Result]:
    return [tuned()[mode]]
