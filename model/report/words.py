"""What modes, scores and features are called, for a reader."""

from collections.abc import Mapping, Sequence

from model.evaluation_file import MODE_TITLES
from model.report.saved import SavedScore
from model.scores import (
    COORDINATES,
    FINETUNE,
    FROM_LABELS,
    INPUT_STATISTICS,
    KNN,
    LINEAR,
    MORE_STATISTICS,
    SEMI,
    SUPERVISED,
)

SPACE = "\N{NO-BREAK SPACE}"
MODES = {
    LINEAR: "Linear classifier on the frozen encoder",
    KNN: "Nearest neighbours, by cosine",
    SEMI: "Semi-supervised: fine-tuned, then a linear classifier on the same labels",
    FINETUNE: "Fine-tuned end to end",
    SUPERVISED: "Supervised: the linear layer that was trained with the encoder",
}
# What stands in the name of features, and what it says of them.
FEATURE_NOTES = {
    INPUT_STATISTICS: "no network: means and deviations of joints, bones and motion",
    MORE_STATISTICS.removeprefix(f"{INPUT_STATISTICS}, "): "also of how far joints are from hands and head",
    COORDINATES: "no network: every coordinate of every joint, at 50 moments",
    "whitened": "what only tells changed copies of a recording apart was made small, learnt without labels",
    f"encoder and {INPUT_STATISTICS}": "both, side by side",
    "fused": "the mean of several runs’ linear classifiers decides",
}


def mode_title(mode: str) -> str:
    """What a mode is, in words."""
    return MODES.get(mode, mode)


def percent_text(share: float) -> str:
    """A share as per cent, without digits that say nothing."""
    return f"{100 * share:.3g}"


def score_text(score: SavedScore) -> str:
    """What a score is of, shortly."""
    share = f", {percent_text(score.share)} % of the labels" if score.label_fraction < 1 else ""
    return f"{MODE_TITLES.get(score.mode, score.mode)}, {score.features}{share}"


def classifier_text(score: SavedScore) -> str:
    """Which classifier a score is of, in a sentence."""
    on = "" if score.features == FROM_LABELS else f" on the {score.features}"
    labels = f"all {score.labels:,} labels"
    if score.label_fraction < 1:
        labels = f"{score.labels:,} labels ({percent_text(score.share)} %)"
    return f"the {MODE_TITLES.get(score.mode, score.mode)} classifier{on}, with {labels}"


def details_text(scores: Mapping[str, SavedScore]) -> str:
    """Of which classifiers details are, by run, and what these have: sentences."""
    found: dict[str, list[str]] = {}
    for run, score in scores.items():
        seeds = f"mean of {score.seeds} seeds" if score.seeds > 1 else ""
        facts = ", ".join(filter(None, [run if len(scores) > 1 else "", seeds]))
        top1 = f"{100 * score.top1.mean:.1f}{SPACE}%" + (f" ({facts})" if facts else "")
        found.setdefault(classifier_text(score), []).append(top1)
    return " ".join(f"Of {what}; top-1 {', '.join(top1)}." for what, top1 in found.items())


def feature_text(features: str, k: int | None, subset: str | None) -> str:
    """Features as a row of a table has them; of several id files the first is named."""
    shown = features if k is None else f"{features}, k{SPACE}={SPACE}{k}"
    if subset is None:
        return shown
    files = subset.split(", ")
    what = subset if len(files) == 1 else f"{len(files)} files, {files[0]} and so on"
    return f"{shown}, labels of {what}"


def feature_notes(features: Sequence[str]) -> list[tuple[str, str]]:
    """What the names of these features hold that not everybody knows, each with what it says."""
    kinds = [_without_runs(name) for name in features]
    return [(part, note) for part, note in FEATURE_NOTES.items() if any(part in kind for kind in kinds)]


def _without_runs(features: str) -> str:
    """Not the names of runs that were fused, which are the user's own."""
    before, fused, _ = features.partition("fused with ")
    return before + fused


def listed(names: Sequence[str]) -> str:
    """a, b and c; "" of none."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
