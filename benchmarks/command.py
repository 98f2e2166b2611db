"""The options that all benchmarks have."""

import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import click

RAW = click.option(
    "--raw",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of NTU RGB+D .skeleton files; damaged and unusual ones are left out.  [default: the real "
    "subset, if it lies beside the project; otherwise synthesized ones]",
)
QUICK = click.option("--quick", is_flag=True, help="Tiny synthesized data and one round: only to try it.")


def benchmark(question: str, *, rounds: int) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a command of a function of `raw` (Path or None), `rounds` and `quick`, which a ValueError, an
    OSError or a command that failed ends in one line.

    question: what the help says.  rounds: how many by default.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def command(**options: object) -> None:
            usual = 1 if options["quick"] else rounds
            try:
                function(**options | {"rounds": options["rounds"] or usual})
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            except (OSError, subprocess.CalledProcessError) as error:
                raise click.ClickException(str(error)) from error

        count = click.option("--rounds", type=click.IntRange(1), help=f"Pairs to time.  [default: {rounds}]")
        settings = {"max_content_width": 100}
        return click.command(help=question, context_settings=settings)(RAW(count(QUICK(command))))

    return decorate
