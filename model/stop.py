"""Asked to stop, training finishes its step, saves and ends."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# torchrun passes on a Ctrl-C that its processes have heard already; only a later one is another.
ANOTHER_AFTER_S = 1.0


class Stopped(KeyboardInterrupt):
    """Training ended early because a signal asked for it, and all is saved.

    exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopSign:
    """The signal that asked this process to stop; 0 while none did."""

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def hear(self, number: int, _: FrameType | None) -> None:
        """A first signal is remembered, a second one ends the program where it is."""
        if self.number and time.monotonic() - self._since > ANOTHER_AFTER_S:
            raise KeyboardInterrupt
        if not self.number:
            self.number, self._since = number, time.monotonic()


@contextmanager
def stop_sign() -> Iterator[StopSign]:
    """SIGINT (Ctrl-C) and SIGTERM set the sign, until the end of the block; only the main thread can hear."""
    sign = StopSign()
    if threading.current_thread() is not threading.main_thread():
        yield sign
        return
    before = {number: signal.signal(number, sign.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield sign
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
