"""The commands on webdataset shards, in a folder and behind a web server, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.store import web
from pipeline.store.shards import Shards
from tests.commands import call, fails, works

TINY = [
    "--set=epochs=1",
    "--set=batch_size=16",
    "--set=model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "--set=model.decoder.widths=[4, 4, 4, 4, 4]",
    "--device=cpu",
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web, "BACKOFF_SECONDS", 0.001)
    monkeypatch.chdir(tmp_path)


def test_a_folder_of_tars_trains() -> None:
    """What preprocess writes and names as the next step must work."""
    works("synthesize", "ucla", "raw", "--samples", "60")
    printed = works(
        "preprocess", "ucla", "raw", "--frames=16", "--format=webdataset", "--shard-samples=8", "--workers=1"
    )
    assert "train --shards shards/ucla" in printed
    works("train", "--shards", "shards/ucla", *TINY)
    assert "linear" in works("eval")


def test_a_server_trains_and_evaluates(both_shards: Shards, serve: Callable[..., str]) -> None:
    """The run knows the address: nobody has to repeat it, and a hiccup ends nothing."""
    log: list[str] = []
    faults = {"*": ["", "", "503", "drop", "", "503"]}
    address = serve(both_shards.folder, faults, log)
    works("train", "--shards", address, "--name=web", *TINY)
    assert faults["*"] == []
    assert not [line for line in log if "zarr" in line]
    assert json.loads(Path("runs/web/run.json").read_text())["shards"] == address
    log.clear()
    works("train", "--resume=web", "--device=cpu")
    assert "linear" in works("eval", "--run=web", "--device=cpu")
    assert {line.split()[0] for line in log} >= {"manifest.json", "samples.csv", "tar/shard-000000.tar"}


def test_commands_take_an_address(both_shards: Shards, serve: Callable[..., str]) -> None:
    """Before training on far shards, one wants to know what they are and that they are sound."""
    address = serve(both_shards.folder)
    facts = json.loads(works("inspect", address, "--json"))
    assert facts == json.loads(works("inspect", str(both_shards.folder), "--json"))
    assert address in works("inspect", address + "/")
    assert "all sound" in works("verify", address)
    works("draw", address, "picture.png")
    assert Path("picture.png").read_bytes()[:4] == b"\x89PNG"


def test_verify_over_http_names_the_damage(both_shards: Shards, serve: Callable[..., str]) -> None:
    """A file that the server lost is damage; a server that is lost is not."""
    name = "tar/shard-000003.tar"
    result = call("verify", serve(both_shards.folder, {name: ["404"]}))
    assert result.exit_code == 1
    assert f"{name}: " in result.stdout
    assert "answers 404" in result.stdout
    lost = fails(1, "verify", serve(both_shards.folder, {name: ["drop", "always"]}))
    assert "is the server up?" in lost
    for command, busy in (("verify", name), ("verify", "samples.csv"), ("inspect", "samples.csv")):
        told = fails(1, command, serve(both_shards.folder, {busy: ["503", "always"]}))
        assert "try again when the server is well" in told
        assert "damaged" not in told


def test_mistakes_with_addresses(shards: Shards, serve: Callable[..., str], tmp_path: Path) -> None:
    """Exit code 2 and one line that says what to do."""
    address = serve(tmp_path)
    for command in (["inspect", address], ["train", "--shards", f"{address}/ntu60"], ["verify", address]):
        assert "no shards there: " in (line := fails(2, *command))
        assert f"{address}" in line
        assert "answers 404" in line
    only_zarr = serve(shards.folder)
    assert "samples" in works("inspect", only_zarr)
    assert "zarr shards are read from disk; serve ones" in fails(2, "train", "--shards", only_zarr)
    assert "an address such as http" in fails(2, "train", "--shards", "s3://bucket/ntu60")
    assert not Path("runs").exists()


def test_a_server_that_does_not_answer_is_a_failure() -> None:
    """Exit code 1: nothing that the user typed is wrong for certain."""
    assert "refused" in fails(1, "inspect", "http://127.0.0.1:1/ntu60")
