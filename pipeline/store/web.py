"""A folder of shards behind a web server.

A large file comes in consecutive ranges, so that after a broken connection only one range is asked for
again; a server that knows no ranges sends the whole file instead.
"""

import logging
import re
import socket
import threading
from typing import Any, Self
from urllib.parse import quote, urlsplit
from weakref import WeakSet

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from pipeline.store.location import Stream

RANGE_BYTES = 8 << 20
# With pauses that double, an address is given up after about a second, a stream after one minute.
SMALL_FILE_RETRIES, STREAM_RETRIES = 3, 8
BACKOFF_SECONDS = 0.2
MAX_PAUSE_SECONDS = 60
CONNECT_SECONDS, SILENCE_SECONDS = 10, 30
RETRIED_STATUS = (429, 500, 502, 503, 504)
OK, PARTIAL, RANGE_NOT_SATISFIABLE = 200, 206, 416
GONE, FORBIDDEN = (404, 410), (401, 403)

logger = logging.getLogger(__name__)


class WebFolder:
    """A folder behind a web server. Connections are kept for as long as they last.

    Raises ValueError if the address is none of a folder on an HTTP server.
    """

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            is_web = parts.scheme.lower() in ("http", "https") and parts.hostname and parts.port != 0
            is_web = is_web and not re.search(r"\s", parts.netloc)
        except ValueError:  # of brackets, or a port, that cannot be
            is_web = False
        if not is_web:
            raise ValueError(f"{address}: expected a folder, or an address such as http://host/shards/ntu60")
        if parts.query or parts.fragment:
            raise ValueError(f"{address}: expected the address of a folder, without ? and #")
        self._address = address.rstrip("/")
        self._closed = threading.Event()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()  # of the sockets
        self._pools = urllib3.PoolManager(
            maxsize=16, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENCE_SECONDS)
        )
        self._pools.pool_classes_by_scheme = _pools_that_tell(self._sockets, self._lock, self._closed)

    def __str__(self) -> str:
        return self._address

    @property
    def name(self) -> str:
        return self._address.rsplit("/", 1)[-1]

    def read(self, name: str) -> bytes:
        return self.get(name, {}, SMALL_FILE_RETRIES).data

    def open(self, name: str) -> Stream:
        fetched, size = 0, 1
        while fetched < size:
            headers = {"Range": f"bytes={fetched}-{fetched + RANGE_BYTES - 1}"}
            answer = self.get(name, headers, STREAM_RETRIES)
            if answer.status == RANGE_NOT_SATISFIABLE:
                return  # an empty file has no ranges
            block = answer.data
            if answer.status == PARTIAL:
                size = self._size_told(name, answer, fetched)
            else:
                size, block = len(block), block[fetched:]
            fetched += len(block)
            if block:
                yield block

    def reopened(self) -> "WebFolder":
        return WebFolder(self._address)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            sockets = list(self._sockets)
        for open_socket in sockets:
            try:
                # Past TLS: its own shutdown would wait for the other side.
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed already
        self._pools.clear()

    def get(self, name: str, headers: dict[str, str], retries: int) -> BaseHTTPResponse:
        """The answer to one request with its whole body: OK, PARTIAL or RANGE_NOT_SATISFIABLE.

        A connection that breaks, also in mid-body, and a server that is overloaded are tried again.
        """
        url = f"{self._address}/{quote(name)}"
        pauses = _Pauses(
            total=retries,
            status_forcelist=RETRIED_STATUS,
            backoff_factor=BACKOFF_SECONDS,
            backoff_max=MAX_PAUSE_SECONDS,
            raise_on_status=False,
        ).told(url, self._closed)
        try:
            answer = self._pools.request("GET", url, headers=headers, retries=pauses)
        except (HTTPError, OSError) as error:
            if self._closed.is_set():
                raise _closed(url) from None
            raise ConnectionError(
                f"{url}: cannot be read, {retries + 1} times in a row: {_reason(error)}; is the server up?"
            ) from None
        if answer.status in (OK, PARTIAL, RANGE_NOT_SATISFIABLE):
            return answer
        found = f"{url}: the server answers {answer.status} {answer.reason or ''}".rstrip()
        if answer.status in GONE:
            raise FileNotFoundError(f"{found}; is the address right, and the copy on the server complete?")
        if answer.status in FORBIDDEN:
            raise PermissionError(f"{found}; the files must be readable without a password")
        if answer.status in RETRIED_STATUS:
            raise ConnectionError(f"{found}, {retries + 1} times in a row; try again when the server is well")
        raise OSError(f"{found}; expected the file; try again when the server is well")

    def _size_told(self, name: str, answer: BaseHTTPResponse, first: int) -> int:
        """The file's size, from an answer that must be the range that begins at `first`."""
        found, length = answer.headers.get("Content-Range", "none"), len(answer.data)
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", found)
        if not told or not length or (int(told[1]), int(told[2])) != (first, first + length - 1):
            raise OSError(
                f"{self._address}/{name}: the server sends {length} bytes as range {found!r} where "
                f"'bytes {first}-' was asked for; serve the files by another server"
            )
        return int(told[3])


class _Pauses(urllib3.Retry):
    """urllib3's retries, whose pauses end when the folder is closed, and are told when they get long."""

    url = ""
    closed = threading.Event()

    def told(self, url: str, closed: threading.Event) -> Self:
        """The same for this address, ended by this event."""
        self.url, self.closed = url, closed
        return self

    def new(self, **changes: Any) -> Self:
        return super().new(**changes).told(self.url, self.closed)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        asked = self.get_retry_after(response) if response is not None else None
        seconds = min(asked or self.get_backoff_time(), MAX_PAUSE_SECONDS)
        if seconds > 1:
            failed = self.history[-1]
            reason = _reason(failed.error) if failed.error else f"status {failed.status}"
            logger.warning("%s: %s; trying again in %.0f s", self.url, reason, seconds)
        if self.closed.wait(seconds):
            raise _closed(self.url)


def _pools_that_tell(
    sockets: "WeakSet[socket.socket]", lock: threading.Lock, closed: threading.Event
) -> dict[str, type[HTTPConnectionPool]]:
    """Connection pools that note every socket they open: only its shutdown ends a read in another thread."""

    def note(connection: HTTPConnection) -> None:
        if isinstance(connection.sock, socket.socket):
            with lock:
                sockets.add(connection.sock)
        if closed.is_set():
            connection.close()
            raise _closed(connection.host)

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            note(self)

    class Encrypted(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            note(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def _reason(error: Exception) -> str:
    """What urllib3 says, without the connection that it says it of, which is ours to name."""
    text = str(getattr(error, "reason", None) or error)
    return re.sub(r"^\w+\(host='[^']*', port=\d+\): ", "", text)


def _closed(url: str) -> ConnectionAbortedError:
    return ConnectionAbortedError(f"{url}: closed while it was read")
