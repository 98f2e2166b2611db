"""A training run on disk: its recipe, where its shards lie, and its checkpoints.

runs/NAME/recipe.toml                       what was trained
runs/NAME/run.json                          on which shards
runs/NAME/checkpoints/step-00000123.pt      the state after that many steps; the last few are kept
runs/NAME/.lock                             empty; held by the process that trains it
"""

import errno
import itertools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.recipe import Recipe, load_recipe
from pipeline.store.damage import DamagedError
from pipeline.store.location import Folder, Location, locate
from pipeline.store.publish import publish_bytes
from pipeline.store.shards import Shards, open_shards

# How many runs an error names.
NAMED = 10


@dataclass(frozen=True)
class Run:
    """One folder under runs/."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's own, wherever it was named from."""
        return self.folder.resolve().name

    def checkpoint_at(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}.pt"

    @property
    def checkpoints(self) -> list[Path]:
        """All that are there, the newest first; a user's own copies, under other names, are not touched."""
        paths = (self.folder / "checkpoints").glob("step-*.pt")
        return sorted(
            (path for path in paths if _step(path).isdecimal()),
            key=lambda path: int(_step(path)),
            reverse=True,
        )

    @property
    def saved_step(self) -> int | None:
        """Of the newest checkpoint, by its name; None before the first."""
        return next((int(_step(path)) for path in self.checkpoints), None)

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
    def results(self) -> Path:
        """Where evaluations keep how well each classifier did, for one that was stopped."""
        return self.folder / "results"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is any, be it damaged or of an earlier version."""
        return bool(self.checkpoints) or self.before_steps.exists()

    @property
    def before_steps(self) -> Path:
        """Where versions before this one left the only checkpoint that they kept."""
        return self.folder / "checkpoints" / "last.pt"

    def way_out(self, step: int) -> str:
        """What to do when training broke at a step: for the end of an error."""
        if step == 1:  # no weight has changed yet
            return (
                "a weight, the temperature or a strength of the views in its recipe is out of float32's range"
            )
        good = f"the last good checkpoint is {self.checkpoint}; " if self.checkpoints else ""
        return f"{good}a lower lr may help"

    def create(self, recipe: Recipe, shards: Path | str | Location, manifest: str) -> None:
        """Make the folder and write down what will be trained, and on the shards of which folder or address.

        Raises ValueError if it cannot be made.
        """
        if not self._create(recipe, shards, manifest):
            way_on = f"go on with --resume {self.folder}" if self.exists else "remove what is there"
            raise ValueError(f"{self.folder}: exists already; choose another --name, or {way_on}")

    def _create(self, recipe: Recipe, shards: Path | str | Location, manifest: str) -> bool:
        """Whether that was done: not where anything lies there already."""
        location = locate(shards)
        place = location.path.resolve() if isinstance(location, Folder) else location
        try:
            self.folder.mkdir(parents=True)
            recipe.save(self.folder / "recipe.toml")
            facts = {"shards": str(place), "manifest": manifest}
            publish_bytes(self.folder / "run.json", json.dumps(facts, indent=1).encode() + b"\n")
        except OSError as error:
            if isinstance(error, FileExistsError) and self.folder.exists():
                return False
            raise ValueError(f"{self.folder}: cannot be written: {error.strerror}") from None
        return True

    def recipe(self) -> Recipe:
        """What it was started with. Raises ValueError if the run does not say, or no recipe holds that."""
        path = self.folder / "recipe.toml"
        if not path.is_file():
            raise ValueError(f"{path}: is missing; start a new run")
        try:
            return load_recipe(str(path))
        except ValueError as error:
            raise ValueError(foreign_recipe(path, error)) from None

    def shards(self) -> str:
        """Folder or address of the shards it was started on. Raises ValueError if the run does not say."""
        return self._fact("shards")

    def open_shards(
        self,
        place: str | None = None,
        on_note: Callable[[str], None] = lambda _: None,
        *,
        way_out: str = "say where they are, by --shards",
    ) -> Shards:
        """The shards at a folder or address; without one, those that it was started on, and on_note hears if
        others lie there now. way_out: where there are none, for the end of the error.

        Raises as `pipeline.store.shards.open_shards`, and ValueError if the run does not say.
        """
        if place:
            return open_shards(place)
        own = self.shards()
        try:
            shards = open_shards(own)
        except DamagedError:
            raise
        except ValueError as error:
            raise ValueError(f"{error}; {self.folder} was trained on them: {way_out}") from None
        if shards.manifest.digest != self.manifest():
            on_note(f"{shards.location} holds other shards now than those that {self.folder} was trained on")
        return shards

    def manifest(self) -> str:
        """The digest of those shards' manifest."""
        return self._fact("manifest")

    def _fact(self, name: str) -> str:
        path = self.folder / "run.json"
        try:
            facts = json.loads(path.read_text())
            what = f"says nothing of the run's {name}"
            if isinstance(facts, dict) and isinstance(facts.get(name), str):
                return str(facts[name])
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        except ValueError:
            what = "damaged: not JSON"
        way_out = "name its shards by --shards" if name == "shards" else "start a new run"
        raise ValueError(f"{path}: {what}; {way_out}")


def foreign_recipe(path: Path, error: ValueError) -> str:
    """What to say of a run's file whose recipe this version cannot read: keys come and go."""
    what = str(error).removeprefix(f"{path}: ")
    return (
        f"{path}: holds no recipe of this version of cpstn: {what}; go on with the version that trained the "
        "run, or train a new one"
    )


def find_run(name_or_path: str | None, parent: Path) -> Run:
    """A run by path, or by name under `parent`; without one, the newest. ValueError if there is none."""
    if name_or_path is None:
        return newest_run(parent)
    folders = Path(name_or_path), parent / name_or_path
    for folder in folders:
        if Run(folder).exists:
            return Run(folder)
    for folder in folders:
        if Run(folder).has_checkpoint:
            raise ValueError(
                f"{folder}: its run.json is missing, which says what it was trained on; start a new run"
            )
    _check_readable(parent)
    runs = sorted(path.parent.name for path in parent.glob("*/run.json"))
    more = f" and {len(runs) - NAMED:,} more" if len(runs) > NAMED else ""
    raise ValueError(
        f"no run {name_or_path!r}; runs under {parent}/: {', '.join(runs[:NAMED]) or 'none'}{more}"
    )


def named_run(parent: Path, name: str) -> Run:
    """A run's folder, be it there or not. Raises ValueError if the name is none of a folder."""
    if not re.fullmatch(r"[\w.-]*\w", name):
        raise ValueError(f"--name {name!r}: expected letters, digits, dots, - and _, as it names a folder")
    return Run(parent / name)


def newest_run(parent: Path) -> Run:
    """The run whose checkpoint was written last. Raises ValueError if there is none."""
    _check_readable(parent)
    checkpoints = [path for folder in parent.glob("*/checkpoints") for path in Run(folder.parent).checkpoints]
    if not checkpoints:
        raise ValueError(f"no trained run under {parent}/; run train first, or name a run")
    newest = max(checkpoints, key=lambda path: (_written(path), path))
    return Run(newest.parent.parent)


def _check_readable(parent: Path) -> None:
    """A folder that cannot be read looks as if it were empty. Raises ValueError."""
    if parent.is_dir() and not os.access(parent, os.R_OK | os.X_OK):
        raise ValueError(f"{parent}: cannot be read: {os.strerror(errno.EACCES)}")


def _written(path: Path) -> int:
    """When, in nanoseconds; 0 of what is no longer there, as training removes its older checkpoints."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def create_next(parent: Path, dataset: str, recipe: Recipe, shards: Location, manifest: str) -> Run:
    """`Run.create` of the first that is free of DATASET-001, DATASET-002 and so on, also where several
    processes look for one at the same time."""
    numbers = itertools.count(1)
    while True:
        run = Run(parent / f"{dataset}-{next(numbers):03d}")
        if run._create(recipe, shards, manifest):
            return run


def _step(checkpoint: Path) -> str:
    """What its name says: digits, but for a user's own copy."""
    return checkpoint.stem.removeprefix("step-")
