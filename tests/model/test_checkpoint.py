"""What a run leaves on disk: whole states, the newest few, that go on to the very same weights."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import FORMAT_VERSION, load_checkpoint, new_model, save_checkpoint
from model.recipe import Recipe, load_recipe
from model.run import Run, create_next, find_run, newest_run
from model.train import train
from pipeline.store.damage import DamagedError
from pipeline.store.publish import alone
from pipeline.store.shards import Shards

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = (
    "epochs=3",
    "batch_size=16",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.projection=[8, 6]",
)

# Trains, saving after every step, and is killed at step 7: in the step or, half written, in its checkpoint.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from model.run import Run
from model.train import train
from pipeline.store.shards import open_shards

torch.set_num_threads(1)

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at_7(progress):
    if progress.step == 7 and sys.argv[3] == "step":
        kill()

def half(path, content):
    if path.name.startswith(".step-00000007"):
        write(path, content[:5000])
        kill()
    return write(path, content)

write = Path.write_bytes
if sys.argv[3] == "save":
    Path.write_bytes = half
new = Run(Path(sys.argv[2]))
train(open_shards(Path(sys.argv[1])), new.recipe(), new, device=torch.device("cpu"), save_minutes=0,
      on_progress=kill_at_7)
"""


def started(shards: Shards, folder: Path, *changes: str) -> tuple[Recipe, Run]:
    recipe, new = load_recipe("compact", TINY + changes), Run(folder)
    new.create(recipe, shards.location, shards.manifest.digest)
    return recipe, new


def trained(shards: Shards, folder: Path, *changes: str, **settings: Any) -> Run:
    recipe, new = started(shards, folder, *changes)
    train(shards, recipe, new, device=CPU, **settings)
    return new


def assert_same(found: object, expected: object, name: str = "") -> None:
    """Nested states with the same bits."""
    assert type(found) is type(expected), name
    if isinstance(found, dict) and isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key in expected:
            assert_same(found[key], expected[key], f"{name}.{key}")
    elif isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), name
    else:
        assert found == expected, name


@pytest.fixture(scope="module")
def whole(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that never stopped, with the checkpoint of every step."""
    return trained(shards, tmp_path_factory.mktemp("whole") / "run", keep=99, save_minutes=0)


@pytest.mark.parametrize("place", ["step", "save"])
def test_a_killed_run_goes_on_to_the_same_bits(
    shards: Shards, whole: Run, tmp_path: Path, place: str
) -> None:
    """Power cuts and out-of-memory killers give no warning; what they cost is a step, not an epoch."""
    recipe, killed = started(shards, tmp_path / "run")
    (tmp_path / "killed.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, tmp_path / "killed.py", shards.folder, killed.folder, place],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    before, end = load_checkpoint(killed), load_checkpoint(whole)
    assert before.step == 6
    assert before.step % (before.steps // recipe.epochs) != 0, "not in mid-epoch"
    train(shards, recipe, killed, device=CPU, resume=True)
    assert_same(load_checkpoint(killed).content, end.content)
    assert sorted(path.suffix for path in killed.checkpoint.parent.iterdir()) == [".pt"] * 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(
    shards: Shards, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Schedulers send SIGTERM before they kill; whoever presses Ctrl-C wants to keep what is done, also in
    mid-epoch, and go on to the same weights as if nothing had happened."""
    small_steps = "batch_size=4"
    sets = [f"--set={change}" for change in (*TINY, small_steps)]
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", "train", "--shards", shards.folder, *sets],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as this process has: it decides the last bits
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    new = Run(tmp_path / "runs/ucla-001")
    while not new.checkpoints:  # of the first epoch's end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    stopped = load_checkpoint(new)
    assert f"stopped at step {stopped.step} of {stopped.steps}, saved in " in said
    assert said.rstrip().endswith("go on with train --resume runs/ucla-001")
    train(shards, new.recipe(), new, device=CPU, resume=True)
    never_stopped = trained(shards, tmp_path / "whole", small_steps)
    assert_same(load_checkpoint(new).content, load_checkpoint(never_stopped).content)


def test_the_newest_few_are_kept(shards: Shards, tmp_path: Path) -> None:
    """A long run would fill the disk; a single checkpoint would leave nothing to fall back on."""
    new = trained(shards, tmp_path / "run", keep=2, save_minutes=0)
    steps = load_checkpoint(new).steps
    assert [path.name for path in new.checkpoints] == [f"step-{n:08d}.pt" for n in (steps, steps - 1)]


def test_a_users_own_copy_is_neither_removed_nor_loaded(shards: Shards, tmp_path: Path) -> None:
    """Whoever renames a checkpoint to keep it would lose it at the next save."""
    recipe, run = started(shards, tmp_path / "run")
    own = run.folder / "checkpoints" / "step-99999999-mine.pt"
    own.parent.mkdir()
    own.write_bytes(b"not even whole")
    train(shards, recipe, run, device=CPU, keep=1, save_minutes=0)
    assert own.exists()
    assert len(run.checkpoints) == 1
    assert load_checkpoint(run).step > 0


def test_saving_follows_the_clock_and_the_epochs(shards: Shards, tmp_path: Path, whole: Run) -> None:
    """An epoch of a large data set takes hours: minutes between checkpoints are what a stop costs."""
    by_epoch = trained(shards, tmp_path / "run", keep=99, save_minutes=60)
    steps = load_checkpoint(whole).steps
    assert len(whole.checkpoints) == steps
    assert [path.stem for path in by_epoch.checkpoints] == [
        f"step-{n:08d}" for n in (steps, 2 * steps // 3, steps // 3)
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_newest_falls_back_to_the_one_before(
    shards: Shards, whole: Run, tmp_path: Path, damage: str
) -> None:
    """One bad block must not cost the whole run, nor be trained on from; and --keep 1 keeps the good one."""
    recipe, new = started(shards, tmp_path / "run")
    new.checkpoint.parent.mkdir()
    for path in whole.checkpoints[:2]:
        (new.checkpoint.parent / path.name).write_bytes(path.read_bytes())
    newest, before = new.checkpoints
    content = bytearray(newest.read_bytes())
    content[_middle_of_largest_part(newest)] ^= 1
    broken = {"cut": bytes(content[:-100]), "flipped": bytes(content), "empty": b"", "text": b"none"}
    newest.write_bytes(broken[damage])
    notes: list[str] = []
    assert load_checkpoint(new, notes.append).step == int(before.stem[5:])
    assert len(notes) == 1
    assert notes[0].startswith(f"{newest}: not a readable checkpoint")
    assert notes[0].endswith("taking the one before")
    train(shards, recipe, new, device=CPU, resume=True, keep=1)
    assert new.checkpoints == [newest]
    assert_same(load_checkpoint(new).content, load_checkpoint(whole).content)


def test_what_cannot_be_read_is_not_taken_for_damaged(
    shards: Shards, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training would go on from the state before, and remove the newest one."""
    _, new = started(shards, tmp_path / "run")
    new.checkpoint.parent.mkdir()
    for path in whole.checkpoints[:2]:
        (new.checkpoint.parent / path.name).write_bytes(path.read_bytes())
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path == new.checkpoint:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error"):
        load_checkpoint(new)


def test_a_checkpoint_that_training_removes_meanwhile_gives_way_to_the_next(
    shards: Shards, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eval` of a run that goes on would end with "No such file"."""
    _, new = started(shards, tmp_path / "run")
    later, newest = new.checkpoint_at(10**6), whole.checkpoint.read_bytes()
    later.parent.mkdir()
    (removed := new.checkpoint_at(1)).write_bytes(newest)
    read = Path.read_bytes

    def read_too_late(path: Path) -> bytes:
        if path == removed:
            later.write_bytes(newest)
            removed.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_too_late)
    assert_same(load_checkpoint(new).content, load_checkpoint(whole).content)


def test_a_checkpoint_that_memory_does_not_suffice_for_is_not_taken_for_damaged(
    whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match=f"out of memory while {whole.checkpoint} was read"):
        load_checkpoint(whole)


def test_a_run_that_another_process_trains_is_not_gone_on_with(shards: Shards, tmp_path: Path) -> None:
    """Each would remove the other's checkpoints as those of later steps, or of too early ones."""
    recipe, new = started(shards, tmp_path / "run")
    with (
        alone(new.folder, "another training", "start a new run"),
        pytest.raises(ValueError, match="another training is writing there; wait for it, or start a new run"),
    ):
        train(shards, recipe, new, device=CPU, resume=True)
    assert not new.checkpoints


def test_nothing_is_promised_where_all_is_damaged(shards: Shards, whole: Run, tmp_path: Path) -> None:
    _, new = started(shards, tmp_path / "run")
    new.checkpoint.parent.mkdir()
    (new.checkpoint.parent / whole.checkpoint.name).write_bytes(b"none")
    notes: list[str] = []
    with pytest.raises(DamagedError, match="nor is any before it"):
        load_checkpoint(new, notes.append)
    assert notes == []


def test_a_folder_that_is_no_run_is_not_to_be_gone_on_with(shards: Shards, tmp_path: Path) -> None:
    """Someone who was killed between making the folder and its first file would be sent in circles."""
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="exists already; choose another --name, or remove what is there"):
        started(shards, tmp_path / "run")
    started(shards, tmp_path / "other")
    with pytest.raises(ValueError, match=r"or go on with --resume .*other"):
        started(shards, tmp_path / "other")


def _middle_of_largest_part(path: Path) -> int:
    """A place that matters: between the parts of a checkpoint lie bytes that nobody reads."""
    with zipfile.ZipFile(path) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
    return path.read_bytes().index(largest) + len(largest) // 2


def test_what_was_damaged_later_does_not_push_out_what_is_whole(shards: Shards, tmp_path: Path) -> None:
    """Damaged checkpoints of later steps would count as the newest, and the whole ones be thrown away."""
    recipe, new = started(shards, tmp_path / "run")
    train(shards, recipe, new, device=CPU, keep=99, save_minutes=0)
    whole = new.checkpoints[-1]
    for path in new.checkpoints[:-1]:
        path.write_bytes(b"damaged")
    assert load_checkpoint(new).step == int(whole.stem[5:])
    heard: list[int] = []
    train(
        shards,
        recipe,
        new,
        device=CPU,
        resume=True,
        keep=1,
        save_minutes=0,
        on_progress=lambda _: heard.append(len(new.checkpoints)),
    )
    assert heard[1:] == [1] * (len(heard) - 1)


def test_all_damaged_says_so(shards: Shards, tmp_path: Path) -> None:
    """Starting again in silence would throw away what a rescue might have saved."""
    _, new = started(shards, tmp_path / "run")
    new.checkpoint_at(3).parent.mkdir()
    new.checkpoint_at(3).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DamagedError, match=r"step-00000003.pt: not a readable .*start a new run"):
        load_checkpoint(new)


class Malicious:
    """Whoever unpickles it runs its code."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_loading_runs_no_code(shards: Shards, tmp_path: Path, way: str) -> None:
    """Checkpoints are passed around; one from a stranger must not be a program."""
    _, new = started(shards, tmp_path / "run")
    victim, path = tmp_path / "victim", new.checkpoint_at(1)
    path.parent.mkdir()
    content = {"version": FORMAT_VERSION, "model": Malicious(victim)}
    if way == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(DamagedError, match="not a readable checkpoint") as error:
        load_checkpoint(new)
    assert not victim.exists()
    if way == "torch":
        assert "code is not run" in str(error.value)
        torch.load(path, weights_only=False)
        assert victim.exists(), "the bait does nothing"


def test_other_versions_say_what_to_do(shards: Shards, tmp_path: Path) -> None:
    """After an update the old runs are still there; their owner wants to know what becomes of them."""
    recipe, new = started(shards, tmp_path / "run")
    with pytest.raises(ValueError, match="no checkpoint yet"):
        load_checkpoint(new)
    (new.folder / "checkpoints").mkdir()
    torch.save({"model": {}}, new.folder / "checkpoints/last.pt")
    with pytest.raises(ValueError, match=r"earlier version .* train a new run with --recipe .*recipe.toml"):
        train(shards, recipe, new, device=CPU, resume=True)
    torch.save({"version": 99}, new.checkpoint_at(5))
    with pytest.raises(ValueError, match=f"version 99; expected one of version {FORMAT_VERSION}"):
        load_checkpoint(new)
    for other in ([1, 2], {"weights": 3}):
        torch.save(other, new.checkpoint_at(6))
        with pytest.raises(ValueError, match="no checkpoint of cpstn"):
            load_checkpoint(new)


def test_recipes_of_other_versions_say_whose_they_are(shards: Shards, tmp_path: Path) -> None:
    """Keys come and go; a run that was trained with one that went is named, and what to do with it."""
    recipe, new = started(shards, tmp_path / "run")
    file = new.folder / "recipe.toml"
    told = r"recipe\.toml: holds no recipe of this version of cpstn: unknown key 'bone_filters'.*a new one"
    file.write_text(f"bone_filters = 0.5\n{file.read_text()}")
    with pytest.raises(ValueError, match=told):
        new.recipe()
    file.unlink()
    with pytest.raises(ValueError, match=r"recipe\.toml: is missing; start a new run"):
        new.recipe()
    model = new_model(shards.spec, recipe)
    facts: dict[str, Any] = {"recipe": recipe, "spec": shards.spec, "manifest": "", "keep": 1}
    facts |= {"samples": 16, "steps": 9}
    save_checkpoint(new, model, None, torch.optim.Adam(model.parameters()), step=3, **facts)
    content = torch.load(new.checkpoint_at(3), weights_only=True)
    content["recipe"]["bone_filters"] = 0.5
    torch.save(content, new.checkpoint_at(3))
    with pytest.raises(ValueError, match=told.replace("recipe\\.toml", "step-00000003\\.pt")):
        load_checkpoint(new)


def test_weights_that_are_no_numbers_are_not_saved(shards: Shards, tmp_path: Path) -> None:
    """They would become the "last good checkpoint" and push out the ones that were."""
    recipe, new = started(shards, tmp_path / "run")
    model = new_model(shards.spec, recipe)
    optimiser = torch.optim.Adam(model.parameters())
    facts: dict[str, Any] = {"recipe": recipe, "spec": shards.spec, "manifest": "", "keep": 1}
    facts |= {"samples": 16, "steps": 9}
    save_checkpoint(new, model, None, optimiser, step=3, **facts)
    model.projector.get_parameter("2.bias").data[1] = torch.inf
    told = r"model\.projector\.2\.bias is no longer a number after step 4; .* checkpoint is .*step-00000003"
    with pytest.raises(RuntimeError, match=told):
        save_checkpoint(new, model, None, optimiser, step=4, **facts)
    assert load_checkpoint(new).step == 3


def test_the_checkpoint_is_plain_and_rebuilds_the_model(shards: Shards, tmp_path: Path) -> None:
    """Other programs read it with torch alone; `eval` rebuilds the very model."""
    recipe, new = started(shards, tmp_path / "run")
    model = train(shards, recipe, new, device=CPU)
    content = torch.load(new.checkpoint, weights_only=True)
    assert set(content["model"]) == set(model.state_dict())
    checkpoint = load_checkpoint(new)
    assert checkpoint.recipe() == recipe
    assert checkpoint.spec() == shards.spec
    assert checkpoint.manifest == shards.manifest.digest
    x_PCTV = torch.randn(3, 3, 16, 20)
    model.eval()
    rebuilt = checkpoint.build_model().eval()
    assert torch.equal(rebuilt.encode(x_PCTV), model.encode(x_PCTV))
    untrained = checkpoint.build_model(trained=False).eval()
    assert not torch.equal(untrained.encode(x_PCTV), model.encode(x_PCTV))


def test_runs_are_found_and_never_overwritten(shards: Shards, tmp_path: Path) -> None:
    """A second run in the same folder would mix two histories."""
    made_from = load_recipe("compact", TINY), shards.location, shards.manifest.digest
    first = create_next(tmp_path, "ucla", *made_from)
    assert first.name == "ucla-001"
    (tmp_path / "ucla-002").mkdir()  # another process has just begun with it
    assert create_next(tmp_path, "ucla", *made_from).name == "ucla-003"
    with pytest.raises(ValueError, match="exists already; choose another --name"):
        started(shards, first.folder)
    assert find_run("ucla-001", tmp_path) == first
    with pytest.raises(ValueError, match=r"no run .other.; runs under .*: ucla-001"):
        find_run("other", tmp_path)
    with pytest.raises(ValueError, match="run train first"):
        newest_run(tmp_path)
