"""The shards that runs were evaluated on, and what it means that they differ."""

from collections.abc import Callable, Mapping, Sequence

from model.report.saved import SavedEvaluation
from model.report.words import listed


def difference_text(evaluations: Mapping[str, SavedEvaluation]) -> str:
    """A sentence where runs, by their names, were evaluated on different shards, "" otherwise."""
    if len({found.evaluated_on for found in evaluations.values()}) < 2:
        return ""
    frames = _runs_by(evaluations, lambda found: str(found.frames))
    if len(frames) > 1:
        return f"{_told(frames, 'shards of {} frames', 'of {}')}: their baselines differ for that reason."
    may = "their baselines may differ for that reason."
    names = _runs_by(evaluations, lambda found: found.shards_name)
    if len(names) > 1:
        return f"{_told(names, 'the shards {}', 'on {}')}: {may}"
    return f"{listed(list(evaluations))} were evaluated on different shards: {may}"


def _runs_by(
    evaluations: Mapping[str, SavedEvaluation], fact: Callable[[SavedEvaluation], str]
) -> dict[str, list[str]]:
    """Runs by a fact of their shards."""
    found: dict[str, list[str]] = {}
    for run, evaluation in evaluations.items():
        found.setdefault(fact(evaluation), []).append(run)
    return found


def _told(runs: Mapping[str, Sequence[str]], first: str, other: str) -> str:
    """Which runs were evaluated on what. first, other: how that is put of the first and of any other."""
    (fact, names), *others = runs.items()
    verb = "was" if len(names) == 1 else "were"
    told = [f"{listed(names)} {verb} evaluated on {first.format(fact)}"]
    return ", ".join([*told, *(f"{listed(names)} {other.format(fact)}" for fact, names in others)])
