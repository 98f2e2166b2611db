"""An evaluation on disk, beside its run: its rows as JSON, the sets of labels as id files, and a picture.

RUN/eval-DATASET-PROTOCOL.json              rows of the same run and shards that were there before stay
RUN/eval-DATASET-PROTOCOL-confusion.png     of the headline
RUN/subsets/DATASET-PROTOCOL-0.1-seed-0.txt
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluate import Evaluation
from model.pictures.confusion import draw_confusion, of_occurring
from model.run import Run
from model.scores import FINETUNE, KNN, LINEAR, SEMI, SUPERVISED, Score, headlines_of
from model.subset import write_subset
from model.versus import versus_untrained
from pipeline.store.publish import in_turn, publish_bytes

# 5: says by which ways to measure its rows came about.
FORMAT_VERSION = 5
MODE_TITLES = {
    LINEAR: "linear",
    KNN: "nearest neighbours",
    SEMI: "semi-supervised",
    FINETUNE: "fine-tuned",
    SUPERVISED: "supervised",
}


@dataclass(frozen=True)
class Saved:
    """Where an evaluation was written. subsets: one id file for each set of fewer labels that was drawn."""

    table: Path
    picture: Path | None
    subsets: tuple[Path, ...]

    @property
    def paths(self) -> list[Path]:
        return [self.table, *([self.picture] if self.picture else []), *self.subsets]


def save_evaluation(evaluation: Evaluation, folder: Path) -> Saved:
    """Write all of it beside the run, whose folder is made if need be."""
    stem = f"eval-{evaluation.dataset}-{evaluation.protocol}"
    path, run = folder / f"{stem}.json", Run(folder)
    with in_turn(run.results):  # not of the run's folder, where training waits for nobody
        table = _with_earlier_rows(to_table(evaluation, run.name), path)
        publish_bytes(path, json.dumps(table, indent=1, ensure_ascii=False).encode() + b"\n")
        picture = _draw(table, folder / f"{stem}-confusion.png")
    return Saved(path, picture, _write_subsets(evaluation, folder / "subsets"))


def to_table(evaluation: Evaluation, run: str) -> dict[str, Any]:
    """Plain data for JSON, accuracies as shares of 1. run: its name."""
    return {
        "version": FORMAT_VERSION,
        "run": run,
        "dataset": evaluation.dataset,
        "title": evaluation.title,
        "pretrained_on": evaluation.pretrained_on,
        "protocol": evaluation.protocol,
        "classes": list(evaluation.classes),
        "train_samples": evaluation.train_samples,
        "test_samples": evaluation.test_samples,
        "seen_in_training": evaluation.seen_in_training,
        "copied": int(evaluation.copied_N.sum()),
        "shards": {"name": evaluation.shards_name, "frames": evaluation.frames},
        "made_from": evaluation.made_from,
        "behind_names": {"subset": _digests_of_files(evaluation), "fused": evaluation.fused},
        "scores": [_score_table(score, evaluation) for score in evaluation.scores],
    }


def _score_table(score: Score, evaluation: Evaluation) -> dict[str, Any]:
    versus = versus_untrained(score, evaluation.scores)
    return score.to_table(evaluation.copied_N) | {"versus_untrained": versus.to_table() if versus else None}


def _digests_of_files(evaluation: Evaluation) -> dict[str, str]:
    """Of the samples that each id file names."""
    return {
        name: hashlib.sha256("\n".join(evaluation.keys[index] for index in chosen).encode()).hexdigest()
        for labelled in evaluation.labelled
        if labelled.files
        for name, chosen in zip(labelled.files, labelled.sets, strict=True)
    }


def _with_earlier_rows(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """With the rows that are there already, of the same weights and shards, and were not measured again.

    Where a file of labels or a run that was fused with bears a name that stood for another then, rows of that
    name are left out.
    """
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if any(earlier[name] != table[name] for name in ("version", "made_from", "classes")):
            return table
        before, now = earlier["behind_names"], table["behind_names"]
        behind = {kind: before[kind] | now[kind] for kind in now}
        changed = {
            kind: {name for name, digest in digests.items() if before[kind].get(name, digest) != digest}
            for kind, digests in now.items()
        }
        kept = {
            _identity(row): row
            for row in earlier["scores"]
            if changed["subset"].isdisjoint((row["subset"] or "").split(", "))
            and changed["fused"].isdisjoint(row["fused"])
        }
        # The rows that were fused with others count what these saw, too.
        seen = max(int(earlier["seen_in_training"]), table["seen_in_training"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return table
    new = {_identity(row): row for row in table["scores"]}
    rows = sorted((kept | new).values(), key=_place)
    return table | {"behind_names": behind, "seen_in_training": seen, "scores": rows}


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("mode", "features", "k", "label_fraction", "labels", "subset"))


def _place(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Modes in their order, more labels first; what is equal stays in the order of its kinds of features."""
    return list(MODE_TITLES).index(row["mode"]), -int(row["labels"]), int(row["k"] or 0)


def _draw(table: dict[str, Any], picture: Path) -> Path | None:
    """The headline's confusion matrix, without the classes that are neither tested nor predicted."""
    found = headlines_of(table["scores"], itemgetter("mode", "features", "labels"))
    if not found:
        return None
    shown = found[0]
    counts_KK, names = of_occurring(np.array(shown["confusion"]), table["classes"])
    what = f"{MODE_TITLES[shown['mode']]} on {shown['labels']:,} labels, {shown['features']}"
    title = f"{table['title']} {table['protocol']}: {what}, top-1 {shown['top1']['mean']:.1%}"
    draw_confusion(picture, counts_KK, names, title=title)
    return picture


def _write_subsets(evaluation: Evaluation, folder: Path) -> tuple[Path, ...]:
    """The sets that were drawn here; those that came from id files are in these."""
    paths = []
    for labelled in evaluation.labelled:
        for seed, chosen in enumerate(labelled.sets if labelled.drawn else ()):
            stem = f"{evaluation.dataset}-{evaluation.protocol}-{labelled.fraction}-seed-{seed}"
            path = folder / f"{stem}.txt"
            title = (
                f"{evaluation.title} {evaluation.protocol}: {len(chosen):,} of {len(evaluation.keys):,} "
                "training samples that show their labels"
            )
            write_subset(path, [evaluation.keys[index] for index in chosen], title)
            paths.append(path)
    return tuple(paths)
