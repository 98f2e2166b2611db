"""How a command ends that cannot go on: in one line and with an exit code, never in a traceback.

Every command imports this module: nothing heavy may be imported at its top.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import click

from pipeline.store.damage import DamagedError

# What a command that was stopped leaves, where somebody has to know.
AFTER_A_STOP = {
    "preprocess": "the same command goes on",
    "eval": "what it measured is kept, the same command goes on",
    "synthesize": "what it wrote so far is no whole data set: remove it before you write there again",
}
OWN_PACKAGES = ("data_specs", "model", "pipeline")
# A path that the user named cannot be what it should be.
OF_THE_USER = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


class Failure(click.ClickException):
    """One line on standard error; exit code 2 for what the user can mend, 1 for what went wrong."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Program(click.Group):
    """Turns the library's exceptions into one line and an exit code; CPSTN_TRACEBACK=1 shows where from."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What a variable of the shell that is not set leaves would mean the default, and other work than was
        asked for."""
        for before, arg in pairwise(["", *args]):
            if arg == "" or re.fullmatch(r"--[\w-]+=", arg):
                where = f"{arg.rstrip('=') or before}: " if (arg or before).startswith("--") else ""
                raise Failure(f"{where}an empty value; leave it out, or say which", 2)
        version = "--version" in args  # which click takes out of them
        with _in_one_line(ctx):  # a help text, too, may go to a full disk
            try:
                return super().parse_args(ctx, args)
            except click.exceptions.Exit:
                raise
            except RuntimeError:
                if not version:
                    raise
                raise _not_set_up("cpstn") from None

    def invoke(self, ctx: click.Context) -> Any:
        with _in_one_line(ctx):
            return super().invoke(ctx)


@contextmanager
def _in_one_line(ctx: click.Context) -> Iterator[None]:
    """The library's exceptions as `Failure`; none is turned with CPSTN_TRACEBACK=1."""
    if os.environ.get("CPSTN_TRACEBACK"):
        yield
        return
    try:
        yield
    except click.exceptions.Exit:  # click's own way to end, and a RuntimeError
        raise
    except ModuleNotFoundError as error:  # another Python than the one that was set up
        missing = str(error.name)
        if missing.partition(".")[0] in OWN_PACKAGES:
            raise
        raise _not_set_up(missing) from None
    except ValueError as error:
        raise Failure(str(error), 1 if isinstance(error, DamagedError) else 2) from None
    except KeyboardInterrupt as stop:
        left = AFTER_A_STOP.get(ctx.invoked_subcommand or "")
        text = str(stop) or (f"stopped; {left}" if left else "stopped")
        raise Failure(text, getattr(stop, "exit_code", 130)) from None
    except BrokenPipeError:  # nobody reads on, as behind `| head`: click ends in silence
        raise
    except (RuntimeError, OSError, MemoryError) as error:
        mended_by_user = isinstance(error, OSError) and error.errno in OF_THE_USER
        raise Failure(failure_text(error), 2 if mended_by_user else 1) from None


def _not_set_up(missing: str) -> Failure:
    return Failure(
        f"{sys.executable} has no {missing}: run `make setup`, then `source .venv/bin/activate`", 2
    )


def failure_text(error: BaseException) -> str:
    """What went wrong, in one line: of a file its path first; of torch's many lines the first."""
    if not isinstance(error, OSError) or not error.strerror:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    text = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return f"{text}; make room, then try again" if error.errno == errno.ENOSPC else text
