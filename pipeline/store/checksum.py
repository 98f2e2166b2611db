"""CRC-32C for kernels: google_crc32c's own C function, called without the interpreter and its lock.

`know_crc32c` tells the compiler where it lies; only then may a kernel that calls `crc32c_of_bytes` run.
"""

import ctypes
import functools
from typing import Any

from llvmlite import binding
from numba import types

_SYMBOL = "cpstn_crc32c_value"
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)

# (address, number of bytes) -> CRC-32C (Castagnoli, RFC 3720)
crc32c_of_bytes: Any = types.ExternalFunction(_SYMBOL, types.uint32(types.uintp, types.uintp))


@functools.cache
def know_crc32c() -> Any:
    """Make the function known, once; it stays as long as the process. Needs google_crc32c."""
    function = _compiled() or _FUNCTION(_interpreted)
    binding.add_symbol(_SYMBOL, ctypes.cast(function, ctypes.c_void_p).value)
    return function


def _compiled() -> Any:
    """The C function behind google_crc32c, or None where only its Python twin is installed."""
    try:
        from google_crc32c import _crc32c

        return ctypes.CDLL(_crc32c.__file__).crc32c_value
    except (ImportError, OSError, AttributeError):
        return None


def _interpreted(address: int, size: int) -> int:
    import google_crc32c

    return int(google_crc32c.value(ctypes.string_at(address, size)))
