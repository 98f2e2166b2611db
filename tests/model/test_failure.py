"""How commands end that cannot go on: a script reads the exit code, a user the one line."""

import errno
import os

import click
import pytest
from click.testing import CliRunner, Result

from model.failure import Program
from pipeline.store.damage import DamagedError


def end_of(error: BaseException, *arguments: str) -> Result:
    """What is left of a command in which this is raised."""

    @click.group(cls=Program)
    def program() -> None:
        pass

    @program.command(context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, expose_value=False)
    def work() -> None:
        raise error

    return CliRunner().invoke(program, ["work", *arguments])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("epochs is 0"), 2, "epochs is 0"),
        (DamagedError("samples.csv: damaged"), 1, "samples.csv: damaged"),
        (RuntimeError("no answer"), 1, "no answer"),
        (RuntimeError("\nCUDA error: unknown\nCompile with `TORCH_USE_CUDA_DSA`"), 1, "CUDA error: unknown"),
        (MemoryError(), 1, "MemoryError"),
        (TimeoutError("timed out"), 1, "timed out"),
        (OSError(errno.EIO, "Input/output error", "x.bin"), 1, "x.bin: Input/output error"),
        (OSError(errno.ENOENT, "No such file", b"x.bin"), 2, "x.bin: No such file"),
        (OSError(errno.ENOSPC, "No space left"), 1, "No space left; make room, then try again"),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else "",
)
def test_what_the_user_can_mend_is_2_and_what_went_wrong_1(error: Exception, code: int, said: str) -> None:
    result = end_of(error)
    assert (result.exit_code, result.stderr) == (code, f"Error: {said}\n")


@pytest.mark.parametrize(
    "name",
    ["EACCES", "EEXIST", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS"],
)
def test_a_path_that_cannot_be_what_it_should_is_for_the_user_to_mend(name: str) -> None:
    number = getattr(errno, name)
    result = end_of(OSError(number, os.strerror(number), "runs/x"))
    assert (result.exit_code, result.stderr) == (2, f"Error: runs/x: {os.strerror(number)}\n")


def test_a_reader_who_has_seen_enough_is_told_nothing() -> None:
    """As behind `| head`, where nothing went wrong."""
    result = end_of(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.stderr) == (1, "")


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("epochs is 0")
    monkeypatch.setenv("CPSTN_TRACEBACK", "1")
    assert end_of(error).exception is error


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("ours"),
        KeyError("ours"),
        TypeError("ours"),
        ModuleNotFoundError("ours", name="model.tran"),
    ],
    ids=repr,
)
def test_a_mistake_of_ours_is_not_told_as_the_users(error: Exception) -> None:
    """Without its traceback nobody could find it."""
    assert end_of(error).exception is error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["raw", ""], "an empty value; leave it out, or say which"),
        (["--run", ""], "--run: an empty value; leave it out, or say which"),
        (["--save-minutes="], "--save-minutes: an empty value; leave it out, or say which"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_empty_value_is_told_by_its_option(arguments: list[str], said: str) -> None:
    """Of an argument there is no name, and the word before it is not one."""
    result = end_of(AssertionError("worked"), *arguments)
    assert (result.exit_code, result.stderr) == (2, f"Error: {said}\n")
