"""Numbers as they stand in text: what one looks like, when it is too large, how to quote what is none."""

import re

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# `float()` may only be asked about one of these: it would also take 1_000.
NUMBER = re.compile(rb"[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE)

INFINITE_FROM = 2.0**128 - 2.0**103  # rounds to infinity in float32


def quoted(token: bytes) -> str:
    """A token as people can read it, whatever its bytes and its length."""
    shown = ascii(token[:40].decode("latin-1"))
    return shown if len(token) <= 40 else f"{shown}..."
