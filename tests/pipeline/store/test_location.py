"""Reading over a network: a hiccup is survived, anything worse is told, and nobody waits after a stop."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import web
from pipeline.store.location import Folder, Location, locate
from pipeline.store.web import WebFolder

NAME = "tar/shard-000000.tar"
CONTENT = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tar").mkdir()
    (tmp_path / NAME).write_bytes(CONTENT)
    (tmp_path / "empty").write_bytes(b"")
    return tmp_path


@pytest.fixture(autouse=True)
def _small_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RANGE_BYTES", 30_000)
    monkeypatch.setattr(web, "BACKOFF_SECONDS", 0.001)


def read_all(place: Location, name: str) -> bytes:
    with closing(place.open(name)) as stream:
        return b"".join(stream)


def test_a_stream_is_the_file(folder: Path, serve: Callable[..., str]) -> None:
    """A byte lost between two ranges would shift all that follow."""
    log: list[str] = []
    server = locate(serve(folder, log=log))
    assert read_all(server, NAME) == read_all(locate(folder), NAME) == CONTENT
    assert log[:2] == [f"{NAME} bytes=0-29999", f"{NAME} bytes=30000-59999"]
    assert len(log) == 4
    assert read_all(server, "empty") == b""
    assert server.read(NAME) == CONTENT


@pytest.mark.parametrize(
    "faults",
    [
        ["503", "503"],
        ["", "503", "500", "", "502", "504", "429"],
        ["drop"],
        ["", "", "drop", "drop", "drop"],
        ["whole"],
        ["", "whole"],
        ["drop", "503", "whole"],
    ],
    ids=" ".join,
)
def test_a_hiccup_is_survived(folder: Path, serve: Callable[..., str], faults: list[str]) -> None:
    """A night's training would end at the first proxy that restarts."""
    assert read_all(locate(serve(folder, {NAME: faults})), NAME) == CONTENT
    assert faults in ([], [""])


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("503", ConnectionError, r"answers 503 .*9 times in a row; .*when the server is well"),
        ("drop", ConnectionError, r"cannot be read, 9 times in a row: .*is the server up\?"),
        ("404", FileNotFoundError, r"answers 404 .*is the address right"),
        ("410", FileNotFoundError, r"answers 410 .*is the address right"),
        ("401", PermissionError, r"answers 401 .*readable without a password"),
        ("403", PermissionError, r"answers 403 .*readable without a password"),
        ("418", OSError, r"answers 418 "),
        ("shift", OSError, r"sends 29999 bytes as range 'bytes 1-.* where 'bytes 0-' was asked for"),
    ],
)
def test_what_does_not_pass_is_told(
    folder: Path, serve: Callable[..., str], fault: str, kind: type[OSError], message: str
) -> None:
    """The address, what was found, what to do: not forty lines of a library's innards."""
    address = serve(folder, {NAME: [fault, "always"]})
    with pytest.raises(kind, match=message) as caught:
        read_all(locate(address), NAME)
    assert f"{address}/{NAME}" in str(caught.value)
    assert not any(innards in str(caught.value) for innards in ("\n", "host='", "Max retries"))


def test_no_server_is_told_soon(folder: Path, serve: Callable[..., str]) -> None:
    """A mistyped port is not worth a minute of patience."""
    for scheme in ("http", "https"):
        address = f"{scheme}://127.0.0.1:1/shards"
        with pytest.raises(ConnectionError, match=rf"{address}.* 4 times in a row: [^(]*refused") as caught:
            locate(address).read("manifest.json")
        assert "Max retries" not in str(caught.value)
    assert locate(serve(folder)).read(NAME) == CONTENT


def test_a_silent_server_is_asked_again(
    folder: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that dies without a word would keep the training waiting for ever."""
    monkeypatch.setattr(web, "SILENCE_SECONDS", 0.2)
    server = locate(serve(folder, {NAME: ["", "stall"]}))
    impatient = threading.Timer(20, server.close)
    impatient.start()
    assert read_all(server, NAME) == CONTENT
    impatient.cancel()


@pytest.mark.parametrize("fault", ["stall", "later"])
def test_closing_ends_a_request_at_once(
    folder: Path, serve: Callable[..., str], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C while a server is silent, or has asked for an hour's patience, must not take that hour."""
    server = locate(serve(folder, {NAME: [fault]}))
    errors: list[BaseException] = []

    def read() -> None:
        try:
            read_all(server, NAME)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    with caplog.at_level(logging.WARNING):
        thread.start()
        time.sleep(0.2)
        until = time.monotonic() + 30  # of a busy machine
        while fault == "later" and "trying again in 60 s" not in caplog.text:
            assert time.monotonic() < until, "the pause that was asked for has not begun"
            time.sleep(0.01)
        assert thread.is_alive()
        started = time.perf_counter()
        server.close()
        thread.join(10)
    assert time.perf_counter() - started < 10
    assert "closed while it was read" in str(errors[0])
    if fault == "later":
        assert f"{NAME}: status 429; trying again in 60 s" in caplog.text
    with pytest.raises(OSError, match="closed while it was read"):
        server.read(NAME)
    assert server.reopened().read(NAME) == CONTENT


def test_addresses_and_folders_are_told_apart() -> None:
    """A typo in an address must not become a folder's name."""
    assert isinstance(locate("shards/ntu60"), Folder)
    assert isinstance(locate("HTTP://host/ntu60/"), WebFolder)
    assert str(locate("https://host/a b/ntu60/")) == "https://host/a b/ntu60"
    none = (
        "s3://bucket/ntu60",
        "ftp://host/x",
        "http://",
        "file:///shards",
        "http://[::1",
        "http://host:99999/x",
    )
    for address in none:
        with pytest.raises(ValueError, match=r"expected a folder, or an address such as http://"):
            locate(address)
    for address in ("http://host/ntu60?token=1", "http://host/ntu60#part"):
        with pytest.raises(ValueError, match=r"without . and #"):
            locate(address)


def test_a_folder_has_one_name_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and results are named after the shards: `.` or a whole address would be no name for a folder."""
    (tmp_path / "ntu60").mkdir()
    monkeypatch.chdir(tmp_path / "ntu60")
    assert [locate(place).name for place in (".", "https://host/shards/ntu60/")] == ["ntu60", "ntu60"]
