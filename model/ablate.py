"""The paper's ablations: the rows of a table trained one after the other, evaluated, set beside the paper's.

RUNS/NAME/ROW-SEED/      a run as `train` leaves it, and linear.json: its accuracy
RUNS/NAME/untrained/     accuracies of the same encoders before training, and of the input's statistics
RUNS/NAME/TABLE.json     the table, with every seed's accuracy; TABLE.csv: one line a row

What lies there already is not done again, so that a table that was stopped goes on where it was.
"""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from model.calibrate import calibrated
from model.checkpoint import Checkpoint, load_checkpoint, new_model
from model.classify import LINEAR_VERSION, linear_evaluation
from model.config import flat, key_of
from model.cpstn import CPSTN
from model.failure import failure_text
from model.feature_cache import FEATURES_VERSION
from model.features import Extractor, encoder_extractor, extract_features, statistics_extractor
from model.question import Parts, read_parts
from model.recipe import CPSTN_OBJECTIVE, Recipe, check_row, load_recipe, row_base
from model.run import Run
from model.scores import INPUT_STATISTICS, UNTRAINED
from model.table5 import Row
from model.train import OnProgress, train
from model.training_set import training_samples
from model.unused import unused_keys
from model.whitening import WHITENING_VERSION
from pipeline.store.publish import check_writable, publish_bytes
from pipeline.store.shards import Shards

Watcher = Callable[["Trial"], AbstractContextManager[OnProgress]]


@dataclass(frozen=True)
class Trial:
    """One row with one seed."""

    row: Row
    recipe: Recipe
    run: Run


@dataclass(frozen=True)
class Line:
    """A line of the table. row: None beneath the rows.  top1: share of 1, by seed.  problems: by seed."""

    name: str
    encoder: str
    row: Row | None = None
    top1: dict[int, float] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """A table: the chosen rows, and beneath them their encoders untrained and the input's statistics.

    copied: how many of the test samples hold the very numbers of a training sample.
    """

    dataset: str
    protocol: str
    train_samples: int
    test_samples: int
    copied: int
    lines: tuple[Line, ...]

    @property
    def failed(self) -> list[Line]:
        return [line for line in self.lines if line.problems]

    def to_frame(self) -> pd.DataFrame:
        """One line a row in the paper's columns; top1 is the mean over seeds, deviation the sample's."""
        frame = pd.DataFrame([_columns(line) for line in self.lines])
        seeds = sorted({seed for line in self.lines for seed in line.top1})
        top1 = pd.DataFrame([line.top1 for line in self.lines], columns=seeds, dtype=float).T
        return frame.assign(top1=top1.mean(), deviation=top1.std(), seeds=top1.count())

    def to_table(self) -> dict[str, Any]:
        """Plain data for JSON, accuracies as shares of 1."""
        lines = [_columns(line) | {"top1": line.top1, "problems": line.problems} for line in self.lines]
        return vars(self) | {"lines": lines}


def plan(
    rows: list[Row],
    folder: Path,
    shards: Shards,
    *,
    recipe: str,
    changes: tuple[str, ...] = (),
    seeds: int = 1,
) -> list[Trial]:
    """The trials of these rows on top of a recipe, row by row, each with its seeds, the recipe's own first.

    Nothing is written. Raises ValueError for what the user can mend: a key that no recipe has or that the
    rows set themselves, shards that cannot be trained on, a run in the folder that was started otherwise.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("ablate trains row after row in one process; start it without torchrun")
    if Run(folder).exists:
        raise ValueError(f"{folder}: holds a run of its own; give the table another folder by --name")
    base = row_base(recipe)
    if base:
        raise ValueError(f"--recipe {recipe}: the table changes {base} row by row; give --recipe {base}")
    trials = []
    for row in rows:
        first = load_recipe(recipe, (*changes, *row.changes()))
        check_row(row, first, recipe)
        if first.objective != CPSTN_OBJECTIVE:
            raise ValueError(
                f"objective is {first.objective!r} by recipe {recipe!r} and --set; expected "
                f"{CPSTN_OBJECTIVE!r}: in another, rows of one encoder would be one and the same"
            )
        training_samples(shards, first)
        for seed in range(first.seed, first.seed + seeds):
            run = Run(folder / f"{row.name}-{seed}")
            trials.append(Trial(row, replace(first, seed=seed), run))
    _check_changes(trials, changes)
    for trial in trials:
        _check_run(trial, shards)
    return trials


def ablate(
    shards: Shards,
    trials: list[Trial],
    folder: Path,
    *,
    device: torch.device,
    threads: int = 2,
    watch: Watcher = lambda _: nullcontext(lambda _: None),
    on_stage: Callable[[str], None] = lambda _: None,
) -> Ablation:
    """Train and evaluate what is not there yet. `watch` follows one trial's training.

    A trial that fails is said to `on_stage` and kept in its line's problems; the others go on.
    """
    check_writable(folder)
    protocol = trials[0].recipe.protocol_on(shards.spec)
    common = _Common(shards, read_parts(shards, protocol), protocol, device, threads, watch, on_stage)
    lines: dict[str, Line] = {}
    first_of_encoder: dict[tuple[str, int], Trial] = {}
    for trial in trials:
        first_of_encoder.setdefault((trial.row.encoder, trial.recipe.seed), trial)
    work = [_of_row(common, trial) for trial in trials]
    work += [_of_untrained(common, trial, folder) for trial in first_of_encoder.values()]
    work += [_of_statistics(common, trials[0], folder)]
    for number, measurement in enumerate(work, 1):
        line, seed = lines.setdefault(measurement.line.name, measurement.line), measurement.seed
        on_stage(f"{number} of {len(work)}: {measurement.what}")
        try:
            line.top1[seed] = measurement.top1()
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            line.problems[seed] = failure_text(error)
            on_stage(f"failed: {line.problems[seed]}")
    return Ablation(
        shards.manifest.dataset,
        protocol,
        len(common.parts.train),
        len(common.parts.test),
        int(shards.copied(protocol).sum()),
        tuple(lines.values()),
    )


def save_ablation(
    ablation: Ablation, folder: Path, name: str, made_from: dict[str, Any]
) -> tuple[Path, Path]:
    """Write the table as JSON and CSV; returns both paths. made_from: what was asked for."""
    table, lines = folder / f"{name}.json", folder / f"{name}.csv"
    content = {"made_from": made_from} | ablation.to_table()
    publish_bytes(table, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    publish_bytes(lines, ablation.to_frame().to_csv(index=False, float_format="%.4f").encode())
    return table, lines


@dataclass(frozen=True, eq=False)
class _Common:
    """What all trials have in common: the data, and how they are trained and evaluated."""

    shards: Shards
    parts: Parts
    protocol: str
    device: torch.device
    threads: int
    watch: Watcher
    on_stage: Callable[[str], None]

    def top1(self, extractor: Extractor) -> float:
        """Linear evaluation of these features."""
        train, test = (
            extract_features(extractor, part, self.device) for part in (self.parts.train, self.parts.test)
        )
        return linear_evaluation(train, test, self.parts.num_classes, self.parts.performances).top1

    def encoder_top1(self, model: CPSTN) -> float:
        """Linear evaluation of the frozen encoder, its batch normalisation measured as `evaluate` does."""
        return self.top1(encoder_extractor(calibrated(model, self.parts.train, self.device)))

    def identity(self, recipe: dict[str, Any] | None) -> dict[str, Any]:
        """What an accuracy belongs to. recipe: what of one decides the features; None of no encoder."""
        return {
            "version": [FEATURES_VERSION, LINEAR_VERSION, WHITENING_VERSION],
            "device": self.device.type,
            "protocol": self.protocol,
            "shards": self.shards.manifest.digest,
            "recipe": recipe,
        }


@dataclass(frozen=True, eq=False)
class _Measurement:
    """One accuracy still to be had. what: it is called."""

    line: Line
    seed: int
    what: str
    top1: Callable[[], float]


def _of_row(common: _Common, trial: Trial) -> _Measurement:
    def measure() -> float:
        return common.encoder_top1(_trained(common, trial).build_model().to(common.device))

    path = trial.run.folder / "linear.json"
    line = Line(trial.row.name, trial.row.encoder, trial.row)
    top1 = partial(_remembered, path, common.identity(trial.recipe.to_table()), measure)
    return _Measurement(line, trial.recipe.seed, f"{trial.run.folder}", top1)


def _of_untrained(common: _Common, trial: Trial, folder: Path) -> _Measurement:
    def measure() -> float:
        model = new_model(common.shards.spec, trial.recipe).to(common.device)
        return common.encoder_top1(model)

    encoder, seed = trial.row.encoder, trial.recipe.seed
    path = folder / "untrained" / f"{encoder}-{seed}.json"
    # The same of all rows with this encoder, whatever they are trained by.
    decide = {"model": trial.recipe.to_table()["model"], "seed": seed}
    for name in ("decoder", "projection", "contrast_pool", "split_channels"):
        del decide["model"][name]
    top1 = partial(_remembered, path, common.identity(decide), measure)
    line = Line(f"untrained {encoder}", encoder)
    return _Measurement(line, seed, f"{UNTRAINED}: {encoder}, seed {seed}", top1)


def _of_statistics(common: _Common, trial: Trial, folder: Path) -> _Measurement:
    def measure() -> float:
        return common.top1(statistics_extractor(common.shards.spec.skeleton))

    path = folder / "untrained" / "statistics.json"
    top1 = partial(_remembered, path, common.identity(None), measure)
    return _Measurement(Line(INPUT_STATISTICS, ""), trial.recipe.seed, INPUT_STATISTICS, top1)


def _trained(common: _Common, trial: Trial) -> Checkpoint:
    """The end of the trial's run, which is started, or gone on with, if it has not ended."""
    shards = common.shards
    with suppress(ValueError):  # no checkpoint yet, or a damaged one, which training says
        newest = load_checkpoint(trial.run)
        if newest.step == newest.steps:
            return newest
    if not trial.run.exists:
        trial.run.create(trial.recipe, shards.location, shards.manifest.digest)
    with common.watch(trial) as on_progress:
        train(
            shards,
            trial.recipe,
            trial.run,
            device=common.device,
            threads=common.threads,
            resume=True,
            on_progress=on_progress,
            on_note=common.on_stage,
        )
    return load_checkpoint(trial.run)


def _remembered(path: Path, identity: dict[str, Any], measure: Callable[[], float]) -> float:
    """The accuracy in the file if it belongs to the same, else a new one, which is written there."""
    try:
        found = json.loads(path.read_text())
        if found["of"] == identity:
            return float(found["top1"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    top1 = measure()
    publish_bytes(path, json.dumps({"top1": top1, "of": identity}, indent=1).encode() + b"\n")
    return top1


def _columns(line: Line) -> dict[str, Any]:
    """The line in the paper's columns; None where it says nothing."""
    row = {} if line.row is None else asdict(line.row)
    names = ("aug1", "pre1", "aug2", "pre2", "half_c", "paper")
    return {"row": line.name, "encoder": line.encoder} | {name: row.get(name) for name in names}


def _check_changes(trials: list[Trial], changes: tuple[str, ...]) -> None:
    """A change that all rows undo would have no effect, and the user would not know. (One that none has a use
    for may stand there from a table with other rows.)"""
    rows = {trial.row.name: trial for trial in trials}
    for change in changes:
        key = key_of(change)
        setting = [name for name, trial in rows.items() if trial.row.sets(key)]
        others = [trial for name, trial in rows.items() if name not in setting]
        if setting and all(key in unused_keys(trial.recipe) for trial in others):
            who = ", ".join(setting) if others else "every row"
            raise ValueError(f"--set {change!r}: {key} is set by {who} already; leave it out")


def _check_run(trial: Trial, shards: Shards) -> None:
    """A run that is there already was started as it would be now, or ValueError."""
    run = trial.run
    if not run.exists:
        return
    if run.manifest() != shards.manifest.digest:
        raise ValueError(
            f"{run.folder}: was trained on other shards than {shards.location}; choose another --name"
        )
    there, now = flat(run.recipe().to_table()), flat(trial.recipe.to_table())
    changed = [
        f"{key}: {there.get(key)} there, {value} now" for key, value in now.items() if there.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"{run.folder}: another recipe ({'; '.join(changed)}); choose another --name, or remove it"
        )
