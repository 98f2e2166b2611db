"""A run's folder: which one is meant, and what it says of itself."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model.recipe import Recipe, load_recipe
from model.run import Run, create_next, find_run, named_run, newest_run
from pipeline.store.shards import Shards


def put_run(folder: Path, *steps: int) -> Run:
    """What is looked at of a run that has checkpoints of these steps."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text('{"shards": "/data/ucla", "manifest": "0f"}')
    for step in steps:
        Run(folder).checkpoint_at(step).touch()
    return Run(folder)


def test_the_newest_run_is_the_one_that_was_saved_last(tmp_path: Path) -> None:
    """Neither the last by its name nor the one that was trained the longest: `eval` without --run would tell
    of another run than the one just trained."""
    runs = [put_run(tmp_path / name, step) for name, step in (("b", 9), ("a", 3), ("c", 5))]
    for second, run in enumerate(runs):
        os.utime(run.checkpoint, (1_000_000 + second, 1_000_000 + second))
    assert newest_run(tmp_path) == runs[2]
    os.utime(runs[1].checkpoint, (2_000_000, 2_000_000))
    assert newest_run(tmp_path) == runs[1]


def test_of_all_checkpoints_of_a_run_the_last_counts(tmp_path: Path) -> None:
    """A run of days ends after one of minutes that was started later; two of a test end in one second."""
    long, short = put_run(tmp_path / "long", 3, 4), put_run(tmp_path / "short", 5)
    for second, path in ((30, long.checkpoint_at(4)), (20, short.checkpoint), (10, long.checkpoint_at(3))):
        os.utime(path, (second, second))
    assert newest_run(tmp_path) == long
    for nanoseconds, run in ((200, short), (300, long)):
        os.utime(run.checkpoint, ns=(40 * 10**9 + nanoseconds,) * 2)
    assert newest_run(tmp_path) == long


def test_a_checkpoint_that_training_removes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """Of a run that is being trained the oldest goes whenever another is written."""
    run = put_run(tmp_path / "run", 4)
    (run.folder / "checkpoints" / "step-00000003.pt").symlink_to("removed")
    assert len(run.checkpoints) == 2
    assert newest_run(tmp_path) == run


def test_a_row_of_a_table_is_not_the_newest_run(tmp_path: Path) -> None:
    """`ablate` leaves its runs in a folder of their own: they are asked for by their paths."""
    run, row = put_run(tmp_path / "run", 3), put_run(tmp_path / "table5" / "cp-stn-0", 3)
    for second, one in enumerate((run, row), start=1):
        os.utime(one.checkpoint, (second, second))
    assert newest_run(tmp_path) == run


def test_a_copy_of_the_users_own_makes_no_run_the_newest(tmp_path: Path) -> None:
    """It would be named, and then have no checkpoint."""
    trained, other = put_run(tmp_path / "trained", 3), put_run(tmp_path / "other")
    for name in ("step-00000003-best.pt", "mine.pt"):
        (other.folder / "checkpoints" / name).touch()
    assert newest_run(tmp_path) == trained
    assert not other.has_checkpoint  # so that --resume begins
    (other.folder / "checkpoints/last.pt").touch()  # of an earlier version
    assert newest_run(tmp_path) == trained
    assert trained.has_checkpoint
    assert other.has_checkpoint


@pytest.mark.parametrize(
    "make", [Run.create, lambda run, *facts: create_next(run.folder.parent, "ucla", *facts)]
)
def test_a_folder_for_runs_that_cannot_be_made_is_told(
    tmp_path: Path, shards: Shards, make: Callable[..., object]
) -> None:
    """A link to a disk that is not mounted is no run that exists already; of such there would be no end."""
    (tmp_path / "runs").symlink_to(tmp_path / "not-mounted")
    with pytest.raises(ValueError, match=r"runs/.*: cannot be written: File exists"):
        make(Run(tmp_path / "runs/ucla-001"), load_recipe("compact"), shards.location, "0f")


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path, shards: Shards) -> None:
    """--resume goes on with a run; what is left of one that was never begun can only be removed."""
    begun, left = put_run(tmp_path / "begun"), Run(tmp_path / "left")
    left.folder.mkdir()
    for run, way_on in ((begun, f"go on with --resume {begun.folder}"), (left, "remove what is there")):
        with pytest.raises(ValueError, match=f"exists already; choose another --name, or {way_on}$"):
            run.create(load_recipe("compact"), shards.location, "0f")


def test_a_run_has_begun_when_all_of_it_is_written(
    tmp_path: Path, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk would else leave one that has no recipe, and that --resume takes for begun."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Run(tmp_path / "run")
    monkeypatch.setattr(Recipe, "save", refuse)
    with pytest.raises(ValueError, match="run: cannot be written: No space left on device"):
        run.create(load_recipe("compact"), shards.location, "0f")
    assert not run.exists


def test_what_is_missing_of_a_run_is_named(tmp_path: Path) -> None:
    """ "No such run" of one whose checkpoints are there sends the user looking elsewhere."""
    run = put_run(tmp_path / "half", 3)
    (run.folder / "run.json").unlink()
    with pytest.raises(ValueError, match=r"half: its run\.json is missing"):
        find_run("half", tmp_path)
    for number in range(12):
        put_run(tmp_path / f"run-{number:02d}")
    with pytest.raises(ValueError, match=r"no run 'other'; runs under .*: run-00, .*, run-09 and 2 more$"):
        find_run("other", tmp_path)


def test_a_folder_of_runs_that_cannot_be_read_does_not_pass_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    for name in (None, "run"):
        with pytest.raises(ValueError, match="cannot be read: Permission denied"):
            find_run(name, tmp_path)


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies under the typed path is what was meant, also where runs/ has one of that name."""
    here = put_run(tmp_path / "ucla-001")
    put_run(tmp_path / "runs" / "ucla-001")
    monkeypatch.chdir(tmp_path)
    assert find_run("ucla-001", Path("runs")).folder.resolve() == here.folder
    assert find_run("runs/ucla-001", Path("runs")).folder == Path("runs/ucla-001")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a b", "a."])
def test_a_name_is_one_folder_under_runs(tmp_path: Path, name: str) -> None:
    """Files would lie where nobody looks for them, or among those of all runs."""
    with pytest.raises(ValueError, match="expected letters, digits, dots, - and _"):
        named_run(tmp_path, name)
    assert named_run(tmp_path, "wide-0.1_b").folder == tmp_path / "wide-0.1_b"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"shards": ', b"\xff", b"3", b'{"shards": 3, "manifest": 0}']
)
def test_a_run_that_does_not_say_what_it_was_trained_on_is_named(tmp_path: Path, content: bytes) -> None:
    """A traceback would tell of JSON where the user has to know which file of which run."""
    run = put_run(tmp_path / "run")
    assert (run.shards(), run.manifest()) == ("/data/ucla", "0f")
    (run.folder / "run.json").write_bytes(content)
    what = r"(damaged: not JSON|says nothing of the run's \w+)"
    for ask, way_out in ((run.shards, "name its shards by --shards"), (run.manifest, "start a new run")):
        with pytest.raises(ValueError, match=rf"run\.json: {what}; {way_out}$"):
            ask()
    (run.folder / "run.json").unlink()
    with pytest.raises(ValueError, match=r"run\.json: cannot be read"):
        run.manifest()


def test_a_run_finds_its_shards_from_any_folder(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were named from the folder that training was started in."""
    monkeypatch.chdir(shards.folder.parent)
    run = Run(tmp_path / "run")
    run.create(load_recipe("compact"), Path(shards.folder.name), shards.manifest.digest)
    assert run.recipe() == load_recipe("compact")
    monkeypatch.chdir(tmp_path)
    assert run.open_shards().manifest.digest == run.manifest() == shards.manifest.digest


def test_a_run_is_called_by_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From within it, too: tables and files name it."""
    run = put_run(tmp_path / "ucla-001")
    monkeypatch.chdir(run.folder)
    assert Run(Path()).name == Run(Path("../ucla-001")).name == "ucla-001"
