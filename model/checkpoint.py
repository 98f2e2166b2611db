"""A training run on disk: its recipe, where its shards lie, and checkpoints of its whole state.

runs/NAME/recipe.toml                       what was trained
runs/NAME/run.json                          on which shards
runs/NAME/checkpoints/step-00000123.pt      the state after that many steps; the last few are kept

A checkpoint is a plain dictionary of tensors, numbers and strings. The step stands for the rate's schedule
and for all randomness, too: order, views and dropout are functions of the recipe's seed and the step.
"""

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_specs.spec import DatasetSpec, parse_spec
from model.cpstn import CPSTN
from model.recipe import CPSTN_OBJECTIVE, SUPERVISED, Recipe, load_recipe, recipe_from
from model.supervised import new_head
from pipeline.store.damage import DamagedError
from pipeline.store.location import Folder, Location, locate
from pipeline.store.publish import publish_bytes, published

FORMAT_VERSION = 2
# Whatever zipfile, pickle and torch say of a file that is not what was written.
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    EOFError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Run:
    """One folder under runs/."""

    folder: Path

    def checkpoint_at(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}.pt"

    @property
    def checkpoints(self) -> list[Path]:
        """All that are there, the newest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.pt"), reverse=True)

    @property
    def checkpoint(self) -> Path:
        """The newest; before the first, a path where nothing is."""
        return next(iter(self.checkpoints), self.checkpoint_at(0))

    @property
    def exists(self) -> bool:
        """Whether a run was started there."""
        return (self.folder / "run.json").is_file()

    @property
    def features(self) -> Path:
        """Where evaluations keep what they extracted, for the next one."""
        return self.folder / "features"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is any, be it damaged or of an earlier version."""
        return any((self.folder / "checkpoints").glob("*.pt"))

    def way_out(self) -> str:
        """What to do when training broke: for the end of an error."""
        good = f"the last good checkpoint is {self.checkpoint}; " if self.checkpoints else ""
        return f"{good}a lower lr may help"

    def create(self, recipe: Recipe, shards: Path | str | Location, manifest: str) -> None:
        """Make the folder and write down what will be trained, and on the shards of which folder or address.

        Raises ValueError if it cannot be made.
        """
        location = locate(shards)
        place = location.path.resolve() if isinstance(location, Folder) else location
        try:
            self.folder.mkdir(parents=True)
            recipe.save(self.folder / "recipe.toml")
            facts = {"shards": str(place), "manifest": manifest}
            publish_bytes(self.folder / "run.json", json.dumps(facts, indent=1).encode() + b"\n")
        except FileExistsError:
            way_on = f"go on with --resume {self.folder}" if self.exists else "remove what is there"
            raise ValueError(f"{self.folder}: exists already; choose another --name, or {way_on}") from None
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot be written: {error.strerror}") from None

    def recipe(self) -> Recipe:
        """What it was started with. Raises ValueError if the run does not say."""
        return load_recipe(str(self.folder / "recipe.toml"))

    def shards(self) -> str:
        """Folder or address of the shards it was started on. Raises ValueError if the run does not say."""
        return self._fact("shards")

    def manifest(self) -> str:
        """The digest of those shards' manifest."""
        return self._fact("manifest")

    def _fact(self, name: str) -> str:
        path = self.folder / "run.json"
        try:
            return str(json.loads(path.read_text())[name])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); start a new run") from None


def find_run(name_or_path: str, parent: Path) -> Run:
    """A run by path, or by name under `parent`. Raises ValueError if there is none."""
    for folder in (Path(name_or_path), parent / name_or_path):
        if Run(folder).exists:
            return Run(folder)
    known = ", ".join(sorted(path.parent.name for path in parent.glob("*/run.json"))) or "none"
    raise ValueError(f"no run {name_or_path!r}; runs under {parent}/: {known}")


def newest_run(parent: Path) -> Run:
    """The run whose checkpoint was written last. Raises ValueError if there is none."""
    checkpoints = sorted(
        parent.glob("*/checkpoints/step-*.pt"), key=lambda path: (path.stat().st_mtime_ns, path)
    )
    if not checkpoints:
        raise ValueError(f"no trained run under {parent}/; run train first, or name a run")
    return Run(checkpoints[-1].parent.parent)


def next_run(parent: Path, dataset: str) -> Run:
    """A run folder that does not exist yet: DATASET-001, DATASET-002 and so on."""
    number = 1
    while (parent / f"{dataset}-{number:03d}").exists():
        number += 1
    return Run(parent / f"{dataset}-{number:03d}")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` of `steps` optimiser steps. `content` is what lies in the file."""

    content: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.content["step"])

    @property
    def steps(self) -> int:
        return int(self.content["steps"])

    @property
    def manifest(self) -> str:
        return str(self.content["manifest"])

    def recipe(self) -> Recipe:
        """The recipe that it was trained by."""
        return recipe_from(self.content["recipe"])

    def spec(self) -> DatasetSpec:
        """The data set that it was trained on."""
        return parse_spec(self.content["spec"])

    def build_model(self, *, trained: bool = True) -> CPSTN:
        """The model with its weights or, untrained, with the weights it began with; in both with what was
        fitted before the first step."""
        model = new_model(self.spec(), self.recipe())
        if trained:
            model.load_state_dict(self.content["model"])
        else:
            model.take_fitted(self.content["model"])
        return model

    def build_head(self, model: CPSTN) -> nn.Linear | None:
        """The linear layer on the model's h that a supervised run was trained with."""
        if self.recipe().objective != SUPERVISED:
            return None
        head = new_head(model, len(self.spec().classes))
        head.load_state_dict(self.content["head"])
        return head


def new_model(spec: DatasetSpec, recipe: Recipe) -> CPSTN:
    """A model with the initial weights that the recipe's seed gives.

    A pretext of weight 0 gets no decoder, nor does any objective but CP-STN's own.
    """
    torch.manual_seed(recipe.seed)
    pretexts = recipe.objective == CPSTN_OBJECTIVE
    return CPSTN(
        spec.skeleton,
        recipe.model,
        spatial_pretext=pretexts and recipe.spatial_weight > 0,
        temporal_pretext=pretexts and recipe.temporal_weight > 0,
    )


def save_checkpoint(
    run: Run,
    model: nn.Module,
    head: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    *,
    recipe: Recipe,
    spec: DatasetSpec,
    manifest: str,
    step: int,
    steps: int,
    keep: int,
) -> None:
    """Write the state after `step`, whole or not at all, to load on any machine; keep the newest `keep`.

    What lies there of later steps is removed: it was damaged, or training would not have gone on from before.
    Raises RuntimeError, and leaves all as it was, if a weight or statistic is not a finite number.
    """
    content = {
        "version": FORMAT_VERSION,
        "model": _on_cpu(model.state_dict()),
        "head": None if head is None else _on_cpu(head.state_dict()),
        "optimiser": _on_cpu(optimiser.state_dict()),
        "recipe": recipe.to_table(),
        "spec": spec.text,
        "manifest": manifest,
        "step": step,
        "steps": steps,
    }
    for name, value in _tensors(content, ""):
        if not value.isfinite().all():
            raise RuntimeError(f"{name} is no longer a number after step {step}; {run.way_out()}")
    path = run.checkpoint_at(step)
    with published(path) as temporary:
        torch.save(content, temporary)
    newest_first = run.checkpoints
    this = newest_first.index(path)
    halves = path.parent.glob(".step-*.tmp")  # of processes that were killed while they wrote
    for old in (*newest_first[:this], *newest_first[this + keep :], *halves):
        old.unlink()


def load_checkpoint(run: Run, on_note: Callable[[str], None] = lambda _: None) -> Checkpoint:
    """The newest checkpoint that is whole. `on_note` hears of damaged ones. No code in them is run.

    Raises ValueError if there is none, or that is of another version; DamagedError if all are damaged;
    OSError where one cannot be read, which says nothing of its content.
    """
    damage: list[str] = []
    for path in run.checkpoints:
        if damage:
            on_note(f"{damage[-1]}; taking the one before")
        try:
            return _read(path)
        except DamagedError as error:
            damage.append(str(error))
    if damage:
        raise DamagedError(f"{damage[0]}, nor is any before it; start a new run")
    if (run.folder / "checkpoints" / "last.pt").exists():
        raise ValueError(
            f"{run.folder}: its checkpoints/last.pt is of an earlier version and does not hold all that this "
            f"one needs; train a new run with --recipe {run.folder / 'recipe.toml'}"
        )
    raise ValueError(
        f"{run.folder}: no checkpoint yet; one comes at the end of every epoch, and every few minutes"
    )


def _read(path: Path) -> Checkpoint:
    """Raises DamagedError if the file is not whole, ValueError if it is of another version."""
    # First of all: whatever fails from here on is the content's fault, not the disk's.
    file = io.BytesIO(path.read_bytes())
    try:
        # torch itself does not look at the checksums.
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise DamagedError(f"checksum of {damaged} is wrong")
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"{path}: not a readable checkpoint: {first_line}") from None
    if not isinstance(content, dict) or content.get("version") != FORMAT_VERSION:
        found = content.get("version") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: a checkpoint of version {found}; expected {FORMAT_VERSION}")
    return Checkpoint(content)


def _tensors(state: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All floating-point tensors in a nested state, with their dotted names."""
    if isinstance(state, torch.Tensor) and state.is_floating_point():
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _on_cpu(state: Any) -> Any:
    """The same nested state with every tensor on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
