"""Everything that decides a training run, one frozen value: read from TOML, changed by `key=value`, saved."""

import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from data_specs.spec import DatasetSpec
from model.baselines.settings import AS_CAL, BASELINES, MS2L, AsCalConfig, MS2LConfig, PCConfig
from model.checks import check_above_zero, check_choice, check_not_negative
from model.config import from_table, set_key, to_table
from model.cpstn import ST_GCN, STATISTICS, ModelConfig
from model.losses import REDUCTIONS
from model.recurrent import RECURRENT
from model.table5 import Row, find_row
from pipeline.augment import ViewConfig
from pipeline.batch import PAPER_VIEWS, VIEW_KINDS
from pipeline.samples import CAMERA, POSITIVES, RECORDING
from pipeline.store.publish import publish_bytes

BUILT_IN_FOLDER = Path(__file__).parent / "recipes"
SCHEDULES = ("linear", "cosine")
PRECISIONS = ("float32", "bf16")
CPSTN_OBJECTIVE, SUPERVISED_OBJECTIVE = "cpstn", "supervised"
OBJECTIVES = (CPSTN_OBJECTIVE, SUPERVISED_OBJECTIVE, *BASELINES)
CHOICES = {
    "objective": OBJECTIVES,
    "positives": POSITIVES,
    "precision": PRECISIONS,
    "reduction": REDUCTIONS,
    "schedule": SCHEDULES,
    "supervised_view": (*VIEW_KINDS, "none"),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """Joint fine-tuning of encoder and classifier on labelled samples (section 4.2.2 gives no values).

    lr falls from its value to 0, as `schedule` says.
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-3
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        check_above_zero(self, "epochs", "batch_size", "lr")
        check_choice("schedule", self.schedule, SCHEDULES)

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of one step of `steps`."""
        return _falling(self.lr, self.schedule, step / steps)


@dataclass(frozen=True)
class Recipe:
    """A training run. The defaults are the paper's values where it gives one (section 4.1.4).

    protocol: whose training split is used; "" is the data set's default one.
    lr falls from its value to 0 over all epochs, as `schedule` says.
    temperature: tau of Eq. 4, which the paper does not give, and of the baselines' contrasts.
    contrast_weight, spatial_weight, temporal_weight: alpha, beta, gamma of Eq. 3.
    reduction: "mean" per element, or the literal "sum" of Eq. 6 and 7.
    views: the two views' kinds, "spatial", "temporal" or "combined"; the first is the one the
        spatial decoder rebuilds from.
    positives: whose two views are pulled together: those of one "recording", or of two of a performance that
        another "camera" filmed at the same time, which then are no negatives either. The data set's spec says
        whether its cameras do, and the names of the files which recordings those are.
    accumulate: in how many parts a batch is worked on, which saves memory; see model.objective.
    precision: "float32", or "bf16" for the layers of encoder, projector and decoders, but for recurrent
        ones. On CUDA the convolutions and recurrent layers of "float32" are cuDNN's, in TF32 unless
        `torch.backends.cudnn.allow_tf32` is turned off, as PyTorch has it.
    objective: "cpstn", which needs no labels, or "supervised": encoder and linear layer from scratch on the
        class-balanced share `label_fraction` of the training labels; or a baseline, which needs none:
        "as_cal_like" contrasts the two views, "ms2l_like" has one temporal view, "pc_like" and "autoencoder"
        have none.
    supervised_view: how supervised training shows a recording: "none" as it is stored and will be tested, or
        as one of the views.
    as_cal_like, pc_like, ms2l_like: what each of these leaves to choose.
    seed decides the initial weights, the order of samples, every view and every dropout.
    """

    epochs: int = 100
    batch_size: int = 256
    lr: float = 5e-5
    schedule: str = "linear"
    weight_decay: float = 0.0
    seed: int = 0
    protocol: str = ""
    temperature: float = 0.1
    contrast_weight: float = 1.0
    spatial_weight: float = 1.0
    temporal_weight: float = 1.0
    reduction: str = "mean"
    views: tuple[str, ...] = PAPER_VIEWS
    positives: str = RECORDING
    view: ViewConfig = field(default_factory=ViewConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    accumulate: int = 1
    precision: str = "float32"
    objective: str = CPSTN_OBJECTIVE
    label_fraction: float = 1.0
    supervised_view: str = "none"
    as_cal_like: AsCalConfig = field(default_factory=AsCalConfig)
    pc_like: PCConfig = field(default_factory=PCConfig)
    ms2l_like: MS2LConfig = field(default_factory=MS2LConfig)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        check_above_zero(self, "epochs", "batch_size", "accumulate", "lr", "temperature", "label_fraction")
        check_not_negative(self, "weight_decay", "contrast_weight", "spatial_weight", "temporal_weight")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected at least 0, below 2**32")
        if len(self.views) != 2:
            raise ValueError(
                f"views has {len(self.views)} entries; expected two, such as {list(PAPER_VIEWS)}"
            )
        for kind in self.views:
            check_choice("views", kind, VIEW_KINDS)
        if self.positives == CAMERA and self.objective != CPSTN_OBJECTIVE:
            raise ValueError(
                f"positives is {CAMERA!r}; expected {RECORDING!r} with objective = {self.objective!r}, "
                f"which has no pairs of two cameras"
            )
        if self.label_fraction > 1:
            raise ValueError(f"label_fraction is {self.label_fraction}; expected at most 1 (all labels)")
        if self.label_fraction < 1 and self.objective != SUPERVISED_OBJECTIVE:
            raise ValueError(
                f"label_fraction is {self.label_fraction}, but objective {self.objective} uses no labels; "
                f"leave it out, or set objective={SUPERVISED_OBJECTIVE}"
            )
        _check_weights(self)
        _check_pretexts(self)
        _check_masks(self)
        _check_mirror(self)
        _check_whitened(self)
        _check_baseline(self)

    @property
    def pretexts(self) -> list[tuple[str, str]]:
        """The weights of the reconstructions that are trained, by name, and the kind of view each is from."""
        weights = zip(("spatial_weight", "temporal_weight"), self.views, strict=True)
        trained = self.objective == CPSTN_OBJECTIVE
        return [(name, kind) for name, kind in weights if trained and getattr(self, name) > 0]

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of one step of `steps`."""
        return _falling(self.lr, self.schedule, step / steps)

    def to_table(self) -> dict[str, Any]:
        """Plain nested dictionaries, as TOML and checkpoints hold them."""
        return to_table(self)

    def protocol_on(self, spec: DatasetSpec) -> str:
        """The protocol that it trains by: its own, or the data set's default one."""
        return self.protocol or spec.default_protocol

    def save(self, path: Path) -> None:
        """Write as TOML that `load_recipe` reads back."""
        publish_bytes(path, tomli_w.dumps(self.to_table()).encode())


def _falling(lr: float, schedule: str, progress: float) -> float:
    """From lr to 0, over a progress from 0 to 1."""
    return lr * (1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2)


def views_of(recipe: Recipe) -> tuple[str, ...]:
    """The kinds of views that a batch is trained with."""
    if recipe.objective in (CPSTN_OBJECTIVE, AS_CAL):
        return recipe.views
    if recipe.objective == MS2L:
        return ("temporal",)
    supervised = recipe.objective == SUPERVISED_OBJECTIVE and recipe.supervised_view != "none"
    return (recipe.supervised_view,) if supervised else ()


def built_in_recipes() -> list[str]:
    """Names that `load_recipe` knows without a file."""
    return sorted(path.stem for path in BUILT_IN_FOLDER.glob("*.toml"))


def load_recipe(name_or_path: str, changes: tuple[str, ...] = ()) -> Recipe:
    """A built-in recipe by name or a TOML file by path, with `key=value` changes; nested keys are dotted.

    "paper:bilstm" is the recipe "paper" with the changes of the row "bilstm" of the paper's Table 5.
    Raises ValueError that names the key, what was found and what was expected.
    """
    base = row_base(name_or_path)
    if base:
        row = find_row(name_or_path.rpartition(":")[2])
        recipe = load_recipe(base, (*row.changes(), *changes))
        check_row(row, recipe, base)
        return recipe
    path = _recipe_file(name_or_path)
    if path is None:
        known = ", ".join(built_in_recipes())
        is_path = "/" in name_or_path or name_or_path.endswith(".toml")
        what = "not a file" if Path(name_or_path).exists() else "no such file"
        found = f"{name_or_path}: {what}" if is_path else f"no recipe {name_or_path!r}"
        raise ValueError(f"{found}: expected {known}, or the path of a TOML file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: not a readable recipe: {error}") from None
    for change in changes:
        set_key(table, change)
    try:
        return recipe_from(table)
    except ValueError as error:
        if name_or_path in built_in_recipes():
            raise
        where = f"{path} and --set" if changes else f"{path}"
        raise ValueError(f"{where}: {error}") from None


def row_base(name_or_path: str) -> str:
    """The recipe that a row of Table 5 changes, of a name such as "paper:bilstm"; "" of any other name."""
    base, colon, _ = name_or_path.rpartition(":")
    return base if colon and _recipe_file(base) is not None else ""


def check_row(row: Row, recipe: Recipe, name: str) -> None:
    """A row of Table 5 with pretexts needs a recipe that has them. Raises ValueError if this one does not.

    recipe: with the row's changes.  name: of what it was made from.
    """
    for key, wanted in (("spatial_weight", row.pre1), ("temporal_weight", row.pre2)):
        if wanted and getattr(recipe, key) == 0:
            raise ValueError(
                f"row {row.name}: {key} is 0 by recipe {name!r} and --set; expected above 0, by --set {key}=1"
            )


def _recipe_file(name_or_path: str) -> Path | None:
    if name_or_path in built_in_recipes():
        return BUILT_IN_FOLDER / f"{name_or_path}.toml"
    return Path(name_or_path) if Path(name_or_path).is_file() else None


def recipe_from(table: dict[str, Any]) -> Recipe:
    """The recipe that a TOML file or checkpoint holds. Raises ValueError on any key or value out of place."""
    return from_table(Recipe, table)


def _check_weights(recipe: Recipe) -> None:
    """A loss of nothing has no gradient."""
    weights = recipe.contrast_weight, recipe.spatial_weight, recipe.temporal_weight
    if recipe.objective == CPSTN_OBJECTIVE and not any(weights):
        raise ValueError(
            "contrast_weight, spatial_weight and temporal_weight are all 0; expected one above 0, as nothing "
            "would be learnt"
        )
    if recipe.objective == CPSTN_OBJECTIVE and recipe.batch_size == 1 and not any(weights[1:]):
        raise ValueError(
            "batch_size is 1; expected at least 2, as the contrast compares a sample with others"
        )


def _check_masks(recipe: Recipe) -> None:
    """What a masked tail has to teach needs one."""
    if recipe.view.mask_max > 0:
        return
    hidden = "view.mask_max is 0.0; expected above 0, as the hidden frames are to be rebuilt"
    if recipe.objective == MS2L:
        raise ValueError(hidden)
    for name, kind in recipe.pretexts:
        if kind == "temporal":
            raise ValueError(f"{hidden}; or set {name}=0")


def _check_mirror(recipe: Recipe) -> None:
    """Nothing in a mirrored body tells that it is: what it was cannot be rebuilt from it."""
    for name, kind in recipe.pretexts:
        if recipe.view.mirror > 0 and kind != "temporal":
            raise ValueError(
                f"view.mirror is {recipe.view.mirror}; expected 0 where a decoder is to rebuild a recording "
                f"from its {kind} view, which no longer tells left from right; or set {name}=0"
            )


def _check_whitened(recipe: Recipe) -> None:
    """Whitening learns from copies that differ."""
    view = recipe.view
    changes = (
        view.rotation,
        view.shear,
        view.jitter_std * view.jitter_probability,
        view.bones,
        view.mirror * (1 - view.mirror),  # always or never mirrored, copies are alike
        view.crop,
    )
    if recipe.model.backbone == STATISTICS and recipe.model.statistics.whitened and not any(changes):
        raise ValueError(
            f"model.statistics.whitened is {recipe.model.statistics.whitened}, but the views change nothing "
            f"that it could learn from; set view.rotation, for one, above 0, or model.statistics.whitened=0"
        )


def _check_pretexts(recipe: Recipe) -> None:
    """The decoders rebuild joints from features of joints, which an ST-GCN alone has."""
    for name, _ in recipe.pretexts:
        if recipe.model.backbone != ST_GCN:
            raise ValueError(
                f"{name} is {getattr(recipe, name)}; expected 0 with model.backbone = "
                f"{recipe.model.backbone!r}, which has no pretexts; set spatial_weight=0, temporal_weight=0"
            )


def _check_baseline(recipe: Recipe) -> None:
    """What a baseline cannot do is refused before anything is read."""
    if recipe.objective not in BASELINES:
        return
    if recipe.model.backbone not in RECURRENT:
        raise ValueError(
            f"model.backbone is {recipe.model.backbone!r}; expected one of {', '.join(RECURRENT)} with "
            f"objective = {recipe.objective!r}; take --recipe {BASELINES[recipe.objective]}"
        )
    if recipe.objective == AS_CAL and recipe.as_cal_like.queue < recipe.batch_size:
        raise ValueError(
            f"as_cal_like.queue is {recipe.as_cal_like.queue}; expected at least batch_size, "
            f"{recipe.batch_size}: it holds the keys of whole batches"
        )
    if recipe.objective == MS2L and recipe.accumulate > 1:
        raise ValueError(
            f"accumulate is {recipe.accumulate}; expected 1 with objective = {MS2L!r}, whose contrast is not "
            f"worked on in parts"
        )
