"""What runs were evaluated on: how many samples, of which shards, and what it means that these differ."""

from collections.abc import Callable, Mapping, Sequence

from model.report.saved import SavedEvaluation
from model.report.words import listed


def sizes_text(evaluations: Mapping[str, SavedEvaluation]) -> str:
    """How many samples train and test."""
    told = _facts(
        evaluations,
        lambda found: f"{found.train_samples:,} training and {found.test_samples:,} test samples",
    )
    return "; ".join(told)


def copies_text(evaluations: Mapping[str, SavedEvaluation]) -> str:
    """How many of the test samples are copies of training samples; "" where none is."""
    told = _facts(
        evaluations,
        lambda found: f"{found.copied:,} of the {found.test_samples:,} test samples" if found.copied else "",
    )
    return listed(told)


def parts_text(evaluations: Mapping[str, SavedEvaluation]) -> str:
    """The test samples that are a part only of those that the paper's figures are of; "" where all are."""
    told = _facts(
        evaluations, lambda found: "" if found.is_comparable else f"{found.test_samples:,} test samples"
    )
    return listed(told)


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


def _facts(evaluations: Mapping[str, SavedEvaluation], fact: Callable[[SavedEvaluation], str]) -> list[str]:
    """Each distinct fact, with the runs that it is of where it is not of all; without those that are ""."""
    found = _runs_by(evaluations, fact)
    return [f"{text} for {listed(runs)}" if len(found) > 1 else text for text, runs in found.items() if text]


def _runs_by(
    evaluations: Mapping[str, SavedEvaluation], fact: Callable[[SavedEvaluation], str]
) -> dict[str, list[str]]:
    """Runs by a fact of what they were evaluated on."""
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
