"""The `ablate` command as a user types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main
from model.table5 import tables
from pipeline.store.shards import Shards

TINY = (
    "--recipe=compact",
    "--set=epochs=1",
    "--set=batch_size=16",
    "--set=model.encoder.widths=[4, 4, 8]",
    "--set=model.encoder.strides=[2, 1, 1]",
    "--set=model.decoder.widths=[4, 4, 4, 4, 4]",
    "--set=model.recurrent.hidden=5",
)


def call(shards: Shards, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["ablate", "--shards", str(shards.folder), *TINY, *arguments])


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a classifier that does not search for its penalty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model.classify.PENALTIES", (1e-2,))
    return tmp_path


def test_a_table_is_printed_in_the_papers_shape_and_saved(shards: Shards, workplace: Path) -> None:
    """What a user reads and what a script reads are the same table, in the order of the paper."""
    result = call(shards, "--rows", "whole-channels, rnn", "--seeds", "2")
    assert result.exit_code == 0, result.output
    for word in ("Encoder", "Aug1", "Pre1", "Aug2", "Pre2", "Half-C", "Acc", "NTU-60 X-Sub", "±", "43.55"):
        assert word in result.stdout
    printed = {cells[0]: cells[1:] for cells in map(_cells, result.stdout.splitlines()) if len(cells) == 9}
    assert printed["rnn"][:6] == ["RNN", "S", "×", "T", "×", "–"]
    assert printed["whole-channels"][:6] == ["A", "S", "√", "T", "√", "×"]
    assert list(printed)[-5:] == ["rnn", "whole-channels", "untrained RNN", "untrained A", "input statistics"]
    saved = json.loads((workplace / "runs/ablate-ucla/rows.json").read_text())
    assert saved["made_from"]["recipe"] == "compact"
    for line in saved["lines"]:
        mean = 100 * sum(line["top1"].values()) / len(line["top1"])
        assert printed[line["row"]][6].split()[0] == f"{mean:.1f}"
    assert (workplace / "runs/ablate-ucla/rows.csv").read_text().startswith("row,encoder,aug1,pre1")
    assert (workplace / "runs/ablate-ucla/rnn-1/run.json").is_file()


def test_a_failing_row_is_named_and_costs_the_exit_code(
    shards: Shards, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' numbers stay, and a script learns that the table is not complete."""

    def fail(*_: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr("model.recurrent.RecurrentEncoder.__init__", fail)
    result = call(shards, "--rows", "rnn,graph-a", "--name", "broken")
    assert result.exit_code == 1
    assert "rnn, seed 0: no memory left" in result.stderr
    assert result.stderr.strip().splitlines()[-1] == "Error: failed: rnn, untrained RNN"
    saved = json.loads((workplace / "runs/broken/rows.json").read_text())
    assert {line["row"]: bool(line["top1"]) for line in saved["lines"]} == {
        "rnn": False,
        "graph-a": True,
        "untrained RNN": False,
        "untrained A": True,
        "input statistics": True,
    }


def test_ctrl_c_says_how_to_go_on(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops a table at night wants to know that nothing is lost."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.ablate.train", stop)
    result = call(shards, "--rows", "rnn")
    assert result.exit_code == 130
    assert "runs/ablate-ucla: the same command goes on with the table" in result.stderr


def test_training_is_asked_and_heard_as_train_does(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has to say, that a batch is smaller than was asked for, is as true of a row."""
    asked: list[dict[str, Any]] = []

    def stop(*_: object, **options: Any) -> None:
        asked.append(options)
        options["on_note"]("a batch is all samples")
        raise KeyboardInterrupt

    monkeypatch.setattr("model.ablate.train", stop)
    told = call(shards, "--rows", "rnn", "--threads", "3", "--device", "cpu").stderr
    assert [(options["threads"], options["device"].type) for options in asked] == [(3, "cpu")]
    assert "\na batch is all samples\n" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "table6"], "no table 'table6': expected one of table5"),
        (["--rows", "gru"], "no row 'gru'"),
        (["--set", "views=['spatial', 'spatial']"], "views is set by every row already"),
        (["--set", "epoch=3"], "did you mean 'epochs'?"),
        (["--name", "../elsewhere"], "--name '../elsewhere': expected letters"),
        (["--seeds", "0"], "0 is not in the range"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
    ],
)
def test_a_users_mistake_gets_one_line_and_no_run(
    shards: Shards, workplace: Path, arguments: list[str], message: str
) -> None:
    """Exit code 2, before anything is written."""
    result = call(shards, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr.strip().splitlines()[-1]
    assert not (workplace / "runs").exists()


def test_the_command_explains_itself() -> None:
    """The tables' names, and that a stopped table goes on, are what a newcomer asks for."""
    for arguments in (["--help"], ["ablate", "--help"]):
        assert "ablate" in CliRunner().invoke(main, arguments).stdout
    printed = CliRunner().invoke(main, ["ablate", "--help"]).stdout
    assert all(table in printed for table in tables())


def _cells(line: str) -> list[str]:
    """The cells of a printed line; none where it is not part of the table."""
    return (
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] if line[:1] in "│┃" else []
    )
