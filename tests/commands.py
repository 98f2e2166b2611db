"""The commands as a user types them, for the tests of the command line."""

from click.testing import CliRunner, Result

from cli import main


def call(*arguments: str) -> Result:
    """Whatever the command does."""
    return CliRunner().invoke(main, arguments)


def works(*arguments: str) -> str:
    """What the command prints on standard output; its exit code must be 0."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(code: int, *arguments: str) -> str:
    """The one line that a failing command prints."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr.strip().splitlines()[-1]
