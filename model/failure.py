"""How a command ends that cannot go on: in one line and with an exit code, never in a traceback.

Every command imports this module, so that nothing heavy is imported at its top.
"""

import os
from typing import Any

import click

from pipeline.store.damage import DamagedError


class Failure(click.ClickException):
    """One line on standard error; exit code 2 for what the user can mend, 1 for what went wrong."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Program(click.Group):
    """Turns the library's exceptions into one line and an exit code; CPSTN_TRACEBACK=1 shows where from."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("CPSTN_TRACEBACK"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:  # click's own way to end, and a RuntimeError
            raise
        except ValueError as error:
            raise Failure(str(error), 1 if isinstance(error, DamagedError) else 2) from None
        except KeyboardInterrupt as stop:
            known = "stopped; preprocess and ablate go on when run again, train with --resume"
            raise Failure(str(stop) or known, getattr(stop, "exit_code", 130)) from None
        except (RuntimeError, OSError, MemoryError) as error:
            raise Failure(_failure_text(error), 1) from None


def _failure_text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
