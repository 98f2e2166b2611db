"""What is measured on what: the question, a protocol's samples and labels, and whether a run fits them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_specs.spec import DatasetSpec
from model.checkpoint import Checkpoint
from model.recipe import SUPERVISED_OBJECTIVE
from model.scores import KNN, LINEAR, MODES, SEMI
from model.subset import Labelled, all_labels, balanced, check_fraction, from_files
from model.supervised import labelled_keys
from pipeline.samples import Samples, in_any_order, split_samples
from pipeline.store.shards import Shards, performances


@dataclass(frozen=True)
class Question:
    """What is to be measured.

    modes: of MODES.  protocol: the train/test split.  fractions: shares of the training labels, beside all of
    them.  subsets: id files of labelled training samples, instead of fractions.  seeds: repetitions of
    whatever is random: which labels are taken, and fine-tuning.  whiten: also all features but the raw
    coordinates whitened by the views' scatter, and each encoder's joined with the input's statistics.
    """

    modes: tuple[str, ...]
    protocol: str
    fractions: tuple[float, ...] = ()
    subsets: tuple[Path, ...] = ()
    seeds: int = 1
    whiten: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError that names what cannot be asked."""
        for mode in self.modes:
            if mode not in MODES:
                raise ValueError(f"unknown mode {mode!r}; expected some of {','.join(MODES)}")
        if not self.modes:
            raise ValueError(f"no mode; expected some of {','.join(MODES)}")
        if self.fractions and self.subsets:
            raise ValueError("a subset file says which labels are used; leave the label fraction out")
        if SEMI in self.modes and not self.subsets and not any(fraction < 1 for fraction in self.fractions):
            raise ValueError("mode semi needs a label fraction below 1, such as 0.1, or a subset file")
        if self.whiten and LINEAR not in self.modes and KNN not in self.modes:
            raise ValueError(f"whitened features are classified by {LINEAR} and {KNN}; add one to the modes")
        for fraction in self.fractions:
            check_fraction(fraction)
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}; expected at least 1")


@dataclass(frozen=True)
class Parts:
    """The training and test samples of a protocol; of the training samples their keys, and the performances
    that they show."""

    train: Samples
    test: Samples
    keys: list[str]
    performances: list[str]
    num_classes: int


def read_parts(shards: Shards, protocol: str) -> Parts:
    """Both parts of a protocol, to be read in any order. Raises ValueError if there is no such protocol."""
    table = shards.split(protocol, "train")
    train, test = in_any_order(*(split_samples(shards, protocol, part) for part in ("train", "test")))
    return Parts(
        train, test, table["key"].tolist(), performances(table, shards.spec), len(shards.spec.classes)
    )


def usual_protocol(checkpoint: Checkpoint, spec: DatasetSpec) -> str:
    """The protocol that the run was trained by; of another data set its default one."""
    of_its_own = checkpoint.spec().name == spec.name
    return checkpoint.recipe().protocol_on(spec) if of_its_own else spec.default_protocol


def labelled_sets(question: Question, parts: Parts) -> list[Labelled]:
    """All labels first, then fewer and fewer."""
    if question.subsets:
        fewer = from_files(question.subsets, parts.keys)
    else:
        wanted = sorted({fraction for fraction in question.fractions if fraction != 1})
        fewer = [balanced(parts.train.labels_N, parts.keys, share, question.seeds) for share in wanted]
    return [all_labels(len(parts.keys)), *reversed(fewer)]


def check_fit(shards: Shards, checkpoint: Checkpoint, run: str = "the run") -> None:
    """Another data set will do if its skeleton is the same. Raises ValueError if it is not, or if the shards
    have too few frames for the run's pool. run: what to call it."""
    found, trained_on = shards.spec.skeleton, checkpoint.spec()
    expected = trained_on.skeleton
    if found.num_joints != expected.num_joints:
        raise ValueError(
            f"{shards.location}: skeletons of {found.num_joints} joints; {run} was trained on "
            f"{trained_on.name} with {expected.num_joints}"
        )
    if found.parents != expected.parents:
        raise ValueError(
            f"{shards.location}: joints hang together otherwise than in {trained_on.name}, which {run} was "
            "trained on"
        )
    try:
        checkpoint.recipe().model.check_frames(shards.source.shape[3])
    except ValueError as error:
        raise ValueError(f"{shards.location}: too short for {run}: {error}") from None


def seen_in_training(shards: Shards, checkpoints: Sequence[Checkpoint], protocol: str) -> int:
    """How many of a protocol's test samples any run was trained on, by their keys: NTU-120 holds NTU-60.

    Of a supervised run those with a label that it used; if it was trained on other shards, at most so many.
    """
    keys, seen = shards.split(protocol, "test")["key"], set()
    for checkpoint in checkpoints:
        recipe, spec = checkpoint.recipe(), checkpoint.spec()
        if recipe.objective == SUPERVISED_OBJECTIVE and checkpoint.manifest == shards.manifest.digest:
            seen |= set(labelled_keys(shards, recipe)).intersection(keys)
            continue
        trained_by = spec.protocol(recipe.protocol_on(spec))
        seen |= {key for key in keys if (fact := spec.parse_name(key)) and trained_by.split(fact) == "train"}
    return len(seen)
