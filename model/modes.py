"""Every way to classify: of each kind of features, on each set of labels, a row of the result table.

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
from model.feature_cache import identity_of_features
from model.features import Pair, check_finite, encoder_features
from model.finetune import finetune
from model.question import Question
from model.recipe import SUPERVISED_OBJECTIVE
from model.result_cache import ResultCache
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

NEIGHBOURS = (1, 20)
# Indices of training samples, those whose labels are shown.
Chosen = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Modes:
    """Every mode on a bench. store: what earlier evaluations measured; None where nothing is kept."""

    bench: Bench
    store: ResultCache | None

    def scores(
        self, question: Question, labelled: Sequence[Labelled], others: Mapping[str, Checkpoint]
    ) -> list[Score]:
        """All rows that a question asks for, on these sets of labels. others: runs to fuse with, by name."""
        scores: list[Score] = []
        if LINEAR in question.modes or KNN in question.modes:
            scores += self._frozen_scores(labelled, question)
            if others:
                scores += self._scores_fused_with(others, labelled)
        scores += self._supervised_scores()
        if SEMI in question.modes or FINETUNE in question.modes:
            scores += self._finetuned_scores(labelled, question)
        return scores

    def _frozen_scores(self, labelled: Sequence[Labelled], question: Question) -> list[Score]:
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
            self.bench.on_stage(f"linear classifier on {len(chosen):,} labels, {name}")
            return [linear_evaluation(train.take(chosen), test, classes, self._performances(chosen))]

        def voted(chosen: Chosen) -> list[Result]:
            train, test = pair()
            self.bench.on_stage(f"nearest neighbours among {len(chosen):,} labels, {name}")
            return nearest_neighbours(train.take(chosen), test, classes, NEIGHBOURS)

        scores = []
        for labels in labelled:
            count = len(labels.sets[0])
            if LINEAR in modes:
                (results,) = self._results({"mode": LINEAR, "features": name}, labels.sets, classified)
                scores.append(Score(LINEAR, name, None, labels.fraction, count, results, labels.subset))
            if KNN in modes:
                what = {"mode": KNN, "features": name, "numbers": NEIGHBOURS}
                for k, results in zip(NEIGHBOURS, self._results(what, labels.sets, voted), strict=True):
                    scores.append(Score(KNN, name, k, labels.fraction, count, results, labels.subset))
        return scores

    def _supervised_scores(self) -> list[Score]:
        """The classifier that a supervised run was trained with, as it is: a row, where the run has one and
        these shards have its classes."""
        recipe, classes = self.bench.checkpoint.recipe(), self.bench.shards.spec.classes
        if recipe.objective != SUPERVISED_OBJECTIVE or self.bench.checkpoint.spec().classes != classes:
            return []
        head = self.bench.checkpoint.build_head(self.bench.trained)
        assert head is not None
        result = self._head_result(self.bench.trained, head.to(self.bench.device))
        share, count = recipe.label_fraction, self.bench.checkpoint.samples
        return [Score(SUPERVISED, FROM_LABELS, None, share, count, (result,))]

    def _finetuned_scores(self, labelled: Sequence[Labelled], question: Question) -> list[Score]:
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
            check_finite(f"{name}, fine-tuned", train, test)
            results[SEMI] = linear_evaluation(train, test, parts.num_classes, self._performances(chosen))
        return results

    def _head_result(self, model: CPSTN, head: nn.Linear) -> Result:
        test, device = self.bench.parts.test, self.bench.device
        labels_N = torch.tensor(test.labels_N, device=device)
        return result_of_scores(head_scores(model, head, test, device), labels_N)

    def _scores_fused_with(
        self, others: Mapping[str, Checkpoint], labelled: Sequence[Labelled]
    ) -> list[Score]:
        """Linear evaluation of this run's and the others' encoders together, trained and untrained."""
        benches = [self.bench, *(replace(self.bench, checkpoint=other) for other in others.values())]
        train = self.bench.parts.train
        behind_names = [identity_of_features(self.bench.shards, other, train) for other in others.values()]
        scores = []
        for kind in ENCODERS:
            pairs = [cache(partial(bench.pair, kind, bench.encoders[kind])) for bench in benches]
            what = {"mode": LINEAR, "features": kind, "fused": behind_names}
            scores += self._fused(kind, what, pairs, tuple(others), labelled)
        return scores

    def _fused(
        self,
        kind: str,
        what: Mapping[str, Any],
        pairs: Sequence[Callable[[], Pair]],
        others: tuple[str, ...],
        labelled: Sequence[Labelled],
    ) -> list[Score]:
        """Of one kind of encoders. what: see `ResultCache.results`.  pairs: of each, to be asked for."""
        name = f"{kind}s, fused with {' + '.join(others)}"

        def classified(chosen: Chosen) -> list[Result]:
            few = [(train.take(chosen), test) for train, test in (pair() for pair in pairs)]
            self.bench.on_stage(f"linear classifiers on {len(chosen):,} labels, {name}")
            return [fused_evaluation(few, self.bench.parts.num_classes, self._performances(chosen))]

        scores = []
        for labels in labelled:
            count = len(labels.sets[0])
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
