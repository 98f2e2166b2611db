"""The runs that a report is about: what lies in their folders, and what is missing there.

Axes: K class.
"""

import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import flat
from model.recipe import CPSTN_OBJECTIVE, recipe_from
from model.report.curves import Curve, read_curves
from model.report.datasets import named_protocol
from model.report.saved import SavedEvaluation, saved_evaluations
from model.run import Run
from model.unused import unused_keys


@dataclass(frozen=True)
class Gap:
    """Something that the page lacks. command: what makes it, behind the program's name; "" where no command
    does."""

    run: str
    what: str
    command: str = ""


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """A run with all that was found of it.

    name: its folder's, or its path where several runs have that name.  recipe: by dotted key, {} where there
    is none to read.  unused: keys that decide nothing of its training.  saved_step: of the newest checkpoint,
    None without one.  curves: of the losses that have a weight in the recipe.
    """

    name: str
    run: Run
    recipe: dict[str, Any]
    unused: frozenset[str]
    saved_step: int | None
    curves: dict[str, Curve]
    evaluations: tuple[SavedEvaluation, ...]
    gaps: tuple[Gap, ...]


def gather(runs: Sequence[Run], program: str) -> list[ReportedRun]:
    """The runs, each once, in their order. Raises ValueError, which says how to call `program`, if none of
    them has a usable evaluation."""
    distinct = list({run.folder.resolve(): run for run in runs}.values())
    names = [run.name for run in distinct]
    found = [
        _reported(run, name if names.count(name) == 1 else run.folder.as_posix())
        for run, name in zip(distinct, names, strict=True)
    ]
    if not any(reported.evaluations for reported in found):
        gaps = [gap for reported in found for gap in reported.gaps if gap.command.startswith(EVAL)]
        what = "; ".join(f"{gap.run}: {gap.what}" for gap in gaps)
        command = gaps[0].command if gaps else f"{EVAL} --run RUN"
        raise ValueError(
            f"nothing to report ({what or 'no runs'}); evaluate a run first: {program} {command}"
        )
    return found


EVAL = "eval"


def eval_command(run: Run) -> str:
    """What makes the evaluation of a run."""
    return f"{EVAL} --run {shlex.quote(run.folder.as_posix())}"


def recipe_differences(runs: Sequence[ReportedRun]) -> list[tuple[str, list[str]]]:
    """Dotted keys whose values are not the same in all runs that have a use for them, with each run's value.

    "" stands for a run that does not have the key, or has no use for it.
    """
    found = []
    for key in dict.fromkeys(key for run in runs for key in run.recipe):
        values = [None if not run.recipe or key in run.unused else _value(run, key) for run in runs]
        if len(set(values) - {None}) > 1:
            found.append((key, [value or "" for value in values]))
    return found


def recipe_rows(run: ReportedRun) -> list[tuple[str, str]]:
    """The whole recipe as rows of dotted key and value."""
    return [(key, _value(run, key)) for key in run.recipe]


def _reported(run: Run, name: str) -> ReportedRun:
    evaluations, problems = saved_evaluations(run.folder)
    saved_step = run.saved_step
    curves = read_curves(run.folder)
    table = _recipe(run, evaluations)
    recipe = flat(table)
    gaps = [Gap(name, problem, eval_command(run)) for problem in problems]
    if not evaluations and not problems:
        gaps.append(Gap(name, "it has not been evaluated", eval_command(run)))
    gaps += [Gap(name, text, eval_command(run)) for text in _outdated(evaluations, saved_step)]
    if saved_step is None:
        gaps.append(Gap(name, "it has no checkpoint", _resume_command(run)))
    gaps += [Gap(name, text, _resume_command(run)) for text in _unfinished(evaluations)]
    if not curves:
        gaps.append(Gap(name, "its folder holds no logs for TensorBoard, so that it has no training curves"))
    if not recipe:
        gaps.append(Gap(name, "its recipe.toml cannot be read"))
    curves, unused = _weighted(curves, recipe), _unused(table)
    return ReportedRun(name, run, recipe, unused, saved_step, curves, tuple(evaluations), tuple(gaps))


def _weighted(curves: dict[str, Curve], recipe: dict[str, Any]) -> dict[str, Curve]:
    """Without the losses that have no part in the total: baselines and former versions log them, as 0."""
    objective = recipe.get("objective", CPSTN_OBJECTIVE)
    group = "" if objective == CPSTN_OBJECTIVE else f"{objective}."
    return {name: curve for name, curve in curves.items() if recipe.get(f"{group}{name}_weight") != 0}


def _outdated(evaluations: list[SavedEvaluation], saved_step: int | None) -> list[str]:
    return [
        f"{found.title}, {found.protocol} was evaluated at step {found.step:,}, before its newest "
        f"checkpoint, of step {saved_step:,}"
        for found in evaluations
        if saved_step is not None and found.step < saved_step
    ]


def _unfinished(evaluations: list[SavedEvaluation]) -> list[str]:
    unfinished = {(found.step, found.steps) for found in evaluations if found.step < found.steps}
    return [
        f"it was evaluated before its end, at step {step:,} of {steps:,}"
        for step, steps in sorted(unfinished)
    ]


def _resume_command(run: Run) -> str:
    return f"train --resume {shlex.quote(run.folder.as_posix())}"


def _recipe(run: Run, evaluations: list[SavedEvaluation]) -> dict[str, Any]:
    """Of the run's file, read as it is: it may hold keys of another version; else of an evaluation."""
    path: Path = run.folder / "recipe.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return evaluations[0].recipe if evaluations else {}


def _unused(table: dict[str, Any]) -> frozenset[str]:
    """The keys that a recipe has no use for; of one of another version nothing is known."""
    try:
        return unused_keys(recipe_from(table))
    except ValueError:
        return frozenset()


def _value(run: ReportedRun, key: str) -> str:
    """As it stands on the page; of the protocol, which may be left open, the one that was trained by."""
    value = run.recipe.get(key)
    if key == "protocol" and value == "":
        trained_on = run.evaluations[0].pretrained_on if run.evaluations else ""
        return named_protocol(trained_on, "") or "the data set's default"
    return _shown(value)


def _shown(value: Any) -> str:
    """As TOML has it, without quotes."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)
