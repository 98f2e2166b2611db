"""A run's whole state after some steps, in a file that any machine reads back.

A checkpoint is a plain dictionary of tensors, numbers and strings. The step stands for the rate's schedule
and for all randomness, too: order, views and dropout are functions of the recipe's seed and the step.
"""

import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_specs.read import parse_spec
from data_specs.spec import DatasetSpec
from model.cpstn import CPSTN
from model.memory import is_out_of_memory
from model.recipe import SUPERVISED_OBJECTIVE, Recipe, recipe_from
from model.run import Run, foreign_recipe
from model.supervised import new_head
from pipeline.store.damage import DamagedError
from pipeline.store.publish import publish_bytes

# 3: how many samples it was trained on.
FORMAT_VERSION = 3
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

    @property
    def samples(self) -> int:
        """How many it was trained on, of a supervised run those with a label."""
        return int(self.content["samples"])

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of the encoder's weights and everything else in the model."""
        digest = hashlib.sha256()
        weights: dict[str, torch.Tensor] = self.content["model"]
        for name in sorted(weights):
            digest.update(name.encode())
            digest.update(weights[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

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
        if self.recipe().objective != SUPERVISED_OBJECTIVE:
            return None
        head = new_head(model, len(self.spec().classes))
        head.load_state_dict(self.content["head"])
        return head


def new_model(spec: DatasetSpec, recipe: Recipe) -> CPSTN:
    """A model with the initial weights that the recipe's seed gives.

    A pretext of weight 0 gets no decoder, nor does any objective but CP-STN's own.
    """
    torch.manual_seed(recipe.seed)
    pretexts = dict(recipe.pretexts)
    return CPSTN(
        spec.skeleton,
        recipe.model,
        spatial_pretext="spatial_weight" in pretexts,
        temporal_pretext="temporal_weight" in pretexts,
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
    samples: int,
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
        "samples": samples,
        "step": step,
        "steps": steps,
    }
    for name, value in _tensors(content, ""):
        if not value.isfinite().all():
            raise RuntimeError(f"{name} is no longer a number after step {step}; {run.way_out(step + 1)}")
    path = run.checkpoint_at(step)
    file = io.BytesIO()  # where torch writes to a disk, it does not say that this is full
    torch.save(content, file)
    publish_bytes(path, file.getbuffer())
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
        except FileNotFoundError:
            if path in run.checkpoints:
                raise
            return load_checkpoint(run, on_note)  # its training has written later ones, and removed this
        except DamagedError as error:
            damage.append(str(error))
    if damage:
        raise DamagedError(f"{damage[0]}, nor is any before it; start a new run")
    if run.before_steps.exists():
        raise ValueError(
            f"{run.folder}: its checkpoints/last.pt is of an earlier version and does not hold all that this "
            f"one needs; train a new run with --recipe {run.folder / 'recipe.toml'}"
        )
    raise ValueError(
        f"{run.folder}: no checkpoint yet; one comes at the end of every epoch, and every few minutes"
    )


def _read(path: Path) -> Checkpoint:
    """Raises DamagedError if the file is not whole, ValueError if it is of another version, RuntimeError if
    memory does not suffice."""
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
        if is_out_of_memory(error):  # of a whole file: it is not to be blamed, and then removed
            raise RuntimeError(f"out of memory while {path} was read; free some") from None
        raise _damaged(path, error) from None
    if not isinstance(content, dict) or content.get("version") != FORMAT_VERSION:
        is_one = isinstance(content, dict) and "version" in content
        found = f"a checkpoint of version {content['version']}" if is_one else "no checkpoint of cpstn"
        raise ValueError(f"{path}: {found}; expected one of version {FORMAT_VERSION}")
    checkpoint = Checkpoint(content)
    try:
        checkpoint.recipe()
    except ValueError as error:
        raise ValueError(foreign_recipe(path, error)) from None
    return checkpoint


def _damaged(path: Path, error: BaseException) -> DamagedError:
    if isinstance(error, pickle.UnpicklingError):  # of which torch says what would make it run the code
        what = "it holds more than tensors, numbers and words, and code is not run"
    else:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DamagedError(f"{path}: not a readable checkpoint: {what}")


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
