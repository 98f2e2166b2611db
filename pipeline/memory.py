"""Moving blocks of bytes in kernels: the C library's own copy and fill, and both around the cache.

Who changes a kernel here touches augment_kernel.py as well: numba keeps that module's compiled kernels, with
these inside, until its own file changes.

Addresses are uint64, as `array.ctypes.data` gives them to a kernel. Nothing is checked here.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Addresses as integers are passed like pointers on every platform that numba supports.
copy_bytes: Any = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
fill_bytes: Any = types.ExternalFunction("memset", types.uintp(types.uintp, types.intc, types.uintp))

_LINE = np.uint64(64)  # bytes
_LINE_TYPE = ir.VectorType(ir.FloatType(), 16)


@njit(cache=True, nogil=True)
def stream_bytes(out, source, size):  # type: ignore[no-untyped-def]
    """As `copy_bytes`, for what is read again only when the cache has long held other things.

    A plain store reads the line before it overwrites it: a third more bytes on the memory bus, which threads
    share. `finish_streams` has to follow before another thread reads. All uint64.
    """
    head = min(size, (_LINE - out % _LINE) % _LINE)
    copy_bytes(out, source, head)
    lines = (size - head) // _LINE
    for line in range(lines):
        offset = head + np.uint64(line) * _LINE
        _stream_line(out + offset, source + offset)  # type: ignore[call-arg]
    done = head + lines * _LINE
    copy_bytes(out + done, source + done, size - done)


@njit(cache=True, nogil=True)
def stream_zeros(out, size):  # type: ignore[no-untyped-def]
    """Zeros, as `stream_bytes`. uint64 both."""
    head = min(size, (_LINE - out % _LINE) % _LINE)
    fill_bytes(out, 0, head)
    lines = (size - head) // _LINE
    for line in range(lines):
        _stream_zero_line(out + head + np.uint64(line) * _LINE)  # type: ignore[call-arg]
    done = head + lines * _LINE
    fill_bytes(out + done, 0, size - done)


@njit(cache=True, nogil=True)
def finish_streams():  # type: ignore[no-untyped-def]
    """What this thread streamed before is there for the others from here on."""
    _fence()  # type: ignore[call-arg]


# The intrinsics below generate instructions that numba has no words for.


def _store_around_cache(builder: Any, out: Any, line: Any) -> None:
    store = builder.store(line, builder.inttoptr(out, _LINE_TYPE.as_pointer()), align=int(_LINE))
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


@intrinsic
def _stream_line(_typing: Any, _out: Any, _source: Any) -> Any:
    """Copy 64 bytes to an address that is a multiple of 64."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        out, source = arguments
        _store_around_cache(
            builder, out, builder.load(builder.inttoptr(source, _LINE_TYPE.as_pointer()), align=1)
        )
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def _stream_zero_line(_typing: Any, _out: Any) -> Any:
    """64 zero bytes at an address that is a multiple of 64."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        _store_around_cache(builder, arguments[0], ir.Constant(_LINE_TYPE, None))
        return context.get_dummy_value()

    return types.void(types.uint64), generate


@intrinsic
def _fence(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
