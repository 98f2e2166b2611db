"""Runs that were never trained, for tests of the report: folders with made-up logs and evaluations.

Axes: K class.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from data_specs.read import load_spec
from model.evaluation_file import FORMAT_VERSION
from model.recipe import load_recipe
from model.report.saved import SavedEvaluation, read_evaluation
from model.run import Run

UCLA = load_spec("ucla").classes


def score_table(
    mode: str = "linear",
    features: str = "trained encoder",
    by_seed: Sequence[float] = (0.75,),
    *,
    fraction: float = 1.0,
    k: int | None = None,
    classes: Sequence[str] = UCLA,
    seed: int = 0,
) -> dict[str, Any]:
    """A score whose confusion fits nothing but its own per_class: 9 + K test samples of class K."""
    random = np.random.default_rng([seed, len(mode), len(features), round(1000 * fraction), k or 0])
    total_KK = np.zeros((len(classes), len(classes)), np.int64)
    for _ in by_seed:
        for true in range(len(classes)):
            total_KK[true] += random.multinomial(9 + true, random.dirichlet(np.full(len(classes), 0.5)))
    hits_K, of_K = np.diag(total_KK), total_KK.sum(axis=1)

    def spread(less: float) -> dict[str, Any]:
        values = [max(share - less, 0) for share in by_seed]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return {"mean": float(np.mean(values)), "deviation": deviation, "by_seed": values}

    return {
        "mode": mode,
        "features": features,
        "k": k,
        "label_fraction": fraction,
        "labels": round(1020 * fraction),
        "seeds": len(by_seed),
        "subset": None,
        "penalties": None,
        "top1": spread(0),
        "top1_without_copies": None,
        "top5": None if mode == "knn" else spread(-0.0123),
        "macro_f1": spread(0.0061),
        "versus_untrained": None,
        "per_class": (hits_K / of_K).tolist(),
        "confusion": total_KK.tolist(),
    }


def full_scores(plus: float = 0.0) -> list[dict[str, Any]]:
    """Every mode, several fractions of labels, one and three seeds."""
    scores = [
        score_table("linear", "trained encoder", [0.7512 + plus]),
        score_table("linear", "untrained encoder", [0.6931 + plus]),
        score_table("linear", "input statistics", [0.8843]),
        score_table("knn", "trained encoder", [0.6217 + plus], k=1),
        score_table("knn", "trained encoder", [0.6334 + plus], k=20),
        score_table("finetune", "trained encoder", [0.9012, 0.9127 + plus, 0.9238]),
    ]
    for fraction, share in ((0.01, 0.31), (0.1, 0.52), (0.5, 0.68)):
        by_seed = [share + plus, share + 0.013, share - 0.0271]
        scores.append(score_table("semi", "trained encoder", by_seed, fraction=fraction))
        scores.append(score_table("semi", "untrained encoder", [share - 0.11], fraction=fraction))
        scores.append(score_table("linear", "trained encoder", [share - 0.04], fraction=fraction))
    return scores


def made_from(
    recipe: dict[str, Any], step: int = 40, steps: int = 40, *, shards: str = "digest"
) -> dict[str, Any]:
    """What an evaluation says of its run. shards: digest of those that it was trained and evaluated on."""
    return {"step": step, "steps": steps, "recipe": recipe, "trained_on": shards, "evaluated_on": shards}


def evaluation_table(scores: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """What `eval` writes on NW-UCLA."""
    return {
        "version": FORMAT_VERSION,
        "run": "made-up",
        "dataset": "ucla",
        "title": "Northwestern-UCLA",
        "pretrained_on": "ucla",
        "protocol": "xview3",
        "classes": list(UCLA),
        "train_samples": 1020,
        "test_samples": 464,
        "seen_in_training": 0,
        "copied": 0,
        "shards": {"name": "ucla-64", "frames": 64},
        "made_from": made_from(load_recipe("compact").to_table()),
        "scores": full_scores() if scores is None else scores,
    } | changes


def read_table(table: Mapping[str, Any], folder: Path) -> SavedEvaluation:
    """An evaluation as the report reads it, by way of a file in the folder."""
    path = folder / "eval-x.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return read_evaluation(path)


def write_run(
    folder: Path,
    evaluation: Mapping[str, Any] | None = None,
    *,
    changes: tuple[str, ...] = (),
    steps: int = 40,
) -> Run:
    """A run's folder with a recipe, logs and, if given, an evaluation; without a checkpoint."""
    run = Run(folder)
    run.create(load_recipe("compact", changes), folder / "no-shards", "digest")
    log(run, range(1, steps + 1))
    if evaluation is not None:
        write_evaluation(run, evaluation)
    return run


def write_evaluation(run: Run, evaluation: Mapping[str, Any]) -> Path:
    path = run.folder / f"eval-{evaluation['dataset']}-{evaluation['protocol']}.json"
    path.write_text(json.dumps(evaluation), encoding="utf-8")
    return path


def log(run: Run, steps: range, value: float = 1.0, purge_step: int | None = None) -> None:
    """Losses as training logs them: `value` / step, and the total twice as much."""
    with SummaryWriter(str(run.folder), purge_step=purge_step) as board:
        for step in steps:
            board.add_scalar("loss/contrast", value / step, step)
            board.add_scalar("loss/total", torch.tensor(2 * value / step), step)
