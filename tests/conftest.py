"""What many tests need: small shards, web servers, and real recordings, which lie beside the project."""

import re
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from data_specs.read import load_spec
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards

# The tests' networks are tiny: more threads only make them wait for each other.
torch.set_num_threads(1)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def official_files() -> Path:
    """The folder of official lists; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets' lists are not at hand")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_ucla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all NW-UCLA JSON files."""
    return _unpacked("nw-ucla.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def real_ntu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of about a thousand NTU-60 .skeleton files."""
    return _unpacked("ntu60-subset.tar.xz", tmp_path_factory)


def _unpacked(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = REAL_DATA / name
    if not archive.is_file():
        pytest.skip(f"real data {name} is not at hand")
    folder = tmp_path_factory.mktemp(name.split(".")[0])
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
        tar.extractall(folder)
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Twelve synthesized recordings of each NW-UCLA class, in 16 frames; their raw files beside, in raw/."""
    folder = tmp_path_factory.mktemp("synthesized-ucla")
    spec = load_spec("ucla")
    synthesize(spec, folder / "raw", 120)
    config = PreprocessConfig(NormalizeConfig(frames=16))
    run(prepare(spec, [folder / "raw"], folder / "shards", config, overwrite=False), workers=2)
    return open_shards(folder / "shards")


@pytest.fixture(scope="session")
def both_shards(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The same recordings in both formats, in 40 tars of 3 samples."""
    out = tmp_path_factory.mktemp("both") / "shards"
    config = PreprocessConfig(NormalizeConfig(frames=16), "both", shard_samples=3)
    run(prepare(shards.spec, [shards.folder.parent / "raw"], out, config, overwrite=False), workers=2)
    return open_shards(out)


class FaultyHandler(BaseHTTPRequestHandler):
    """Serves a folder with ranges, as nginx does, but for the faults that wait for a file.

    faults: by file name, what happens to its next requests, one after the other: "drop" breaks the connection
    in mid-body, "stall" says nothing more in mid-body, "whole" sends the file without regard to the range,
    "shift" sends another range, a number is the answer's status, "later" is 429 with a "Retry-After" of
    an hour. The key "*" is for all files. Where the list ends in "always", the fault before it stays.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, *args: Any, folder: Path, faults: dict[str, list[str]], log: list[str]) -> None:
        self.folder, self.faults, self.log = folder, faults, log
        super().__init__(*args)

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.log.append(f"{name} {self.headers.get('Range', 'whole')}")
        fault = self._next_fault(name)
        if fault.isdigit() or fault == "later" or not (self.folder / name).is_file():
            self.send_response(429 if fault == "later" else int(fault or 404))
            self.send_header("Content-Length", "0")
            if fault == "later":
                self.send_header("Retry-After", "3600")
            self.end_headers()
            return
        content = (self.folder / name).read_bytes()
        total = len(content)
        if wanted and fault != "whole":
            first, last = int(wanted[1]) + (fault == "shift"), min(int(wanted[2]) + 1, total)
            content = content[first:last]
            self.send_response(206 if content else 416)
            self.send_header(
                "Content-Range", f"bytes {first}-{last - 1}/{total}" if content else f"*/{total}"
            )
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault in ("drop", "stall"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.connection.recv(1)  # until the client gives up
            self.close_connection = True
        else:
            with suppress(ConnectionError):  # a client that was stopped
                self.wfile.write(content)

    def _next_fault(self, name: str) -> str:
        waiting = self.faults.get(name) or self.faults.get("*") or [""]
        if waiting[1:] == ["always"]:
            return waiting[0]
        return waiting.pop(0)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """`serve(folder, faults={}, log=[])` starts a web server and gives its address; see FaultyHandler."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path, faults: dict[str, list[str]] | None = None, log: list[str] | None = None) -> str:
        handler = partial(
            FaultyHandler,
            folder=folder,
            faults={} if faults is None else faults,
            log=[] if log is None else log,
        )
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.socket.close()


@pytest.fixture
def nginx(both_shards: Shards, tmp_path: Path) -> Iterator[str]:
    """The address of `both_shards` behind nginx; the test is skipped where nginx is not installed."""
    program = shutil.which(
        "nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"
    )
    if program is None:
        pytest.skip("nginx is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch = "".join(
        f"{name}_temp_path {tmp_path}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;"
        f"events {{}} http {{ access_log off; {scratch}"
        f"server {{ listen 127.0.0.1:{port}; root {both_shards.folder}; }} }}"
    )
    process = subprocess.Popen(
        [program, "-p", tmp_path, "-e", tmp_path / "error.log", "-c", tmp_path / "nginx.conf"]
    )
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "error.log").read_text()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
