"""A training run on disk: its recipe, where its shards lie, and a checkpoint that is always whole.

runs/NAME/recipe.toml            what was trained
runs/NAME/run.json               on which shards
runs/NAME/checkpoints/last.pt    a plain dictionary of tensors, numbers and strings
"""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_specs.spec import DatasetSpec, parse_spec
from model.cpstn import CPSTN
from model.recipe import Recipe, load_recipe, recipe_from
from pipeline.store.location import Folder, Location, locate
from pipeline.store.publish import publish_bytes, published

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Run:
    """One folder under runs/."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

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
            raise ValueError(
                f"{self.folder}: exists already; choose another --name, or go on with --resume {self.folder}"
            ) from None
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
        if (folder / "run.json").is_file():
            return Run(folder)
    known = ", ".join(sorted(path.parent.name for path in parent.glob("*/run.json"))) or "none"
    raise ValueError(f"no run {name_or_path!r}; runs under {parent}/: {known}")


def newest_run(parent: Path) -> Run:
    """The run whose checkpoint was written last. Raises ValueError if there is none."""
    checkpoints = sorted(
        parent.glob("*/checkpoints/last.pt"), key=lambda path: (path.stat().st_mtime_ns, path)
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
        """The model with its weights or, untrained, with the weights it began with."""
        model = new_model(self.spec(), self.recipe())
        if trained:
            model.load_state_dict(self.content["model"])
        return model


def new_model(spec: DatasetSpec, recipe: Recipe) -> CPSTN:
    """A model with the initial weights that the recipe's seed gives."""
    torch.manual_seed(recipe.seed)
    return CPSTN(spec.skeleton, recipe.model)


def save_checkpoint(
    run: Run,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    recipe: Recipe,
    spec: DatasetSpec,
    manifest: str,
    step: int,
    steps: int,
) -> None:
    """Write last.pt so that at every moment a whole one lies there, which loads on any machine."""
    content = {
        "version": FORMAT_VERSION,
        "model": _on_cpu(model.state_dict()),
        "optimiser": _on_cpu(optimiser.state_dict()),
        "recipe": recipe.to_table(),
        "spec": spec.text,
        "manifest": manifest,
        "step": step,
        "steps": steps,
    }
    with published(run.checkpoint) as temporary:
        torch.save(content, temporary)


def load_checkpoint(run: Run) -> Checkpoint:
    """Reads tensors and plain values only and runs no code. Raises ValueError if it cannot be used."""
    path = run.checkpoint
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{run.folder}: no checkpoint yet; it comes at the end of the first epoch") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint: {first_line}") from None
    if not isinstance(content, dict) or content.get("version") != FORMAT_VERSION:
        found = content.get("version") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: a checkpoint of version {found}; expected {FORMAT_VERSION}")
    return Checkpoint(content)


def _on_cpu(state: Any) -> Any:
    """The same nested state with every tensor on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
