import numpy as np
import pytest
from numba import njit

from pipeline.memory import finish_streams, stream_bytes, stream_zeros


@njit(nogil=True)
def move(out, source, size):  # type: ignore[no-untyped-def]
    stream_bytes(np.uint64(out.ctypes.data), np.uint64(source.ctypes.data), np.uint64(size))
    finish_streams()


@njit(nogil=True)
def clear(out, size):  # type: ignore[no-untyped-def]
    stream_zeros(np.uint64(out.ctypes.data), np.uint64(size))
    finish_streams()


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 1000])
@pytest.mark.parametrize("offset", [0, 1, 4, 60, 64, 100])
def test_streamed_bytes_are_the_source_s_and_the_others_stay(offset: int, size: int) -> None:
    generator = np.random.default_rng(size)
    source = generator.integers(1, 256, 1200, dtype=np.uint8)[7:]
    out = generator.integers(1, 256, 1200, dtype=np.uint8)
    expected = out.copy()

    expected[offset : offset + size] = source[:size]
    move(out[offset:], source, size)
    np.testing.assert_array_equal(out, expected)

    expected[offset : offset + size] = 0
    clear(out[offset:], size)
    np.testing.assert_array_equal(out, expected)
