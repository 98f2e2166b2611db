"""The checksum that kernels call: the library's own answer, in whichever way the library was built."""

import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from numba import njit

from pipeline.store.checksum import crc32c_of_bytes, know_crc32c

ROOT = Path(__file__).parents[3]


@njit
def crc32c_of(content):  # type: ignore[no-untyped-def]
    return crc32c_of_bytes(np.uint64(content.ctypes.data), np.uint64(len(content)))


@pytest.mark.parametrize("size", [0, 1, 7, 4096, 60_001])
def test_kernels_get_the_librarys_checksum(size: int) -> None:
    """Else sound shards would be called damaged, or damaged ones sound."""
    know_crc32c()
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert crc32c_of(content) == google_crc32c.value(content.tobytes())


def test_the_librarys_python_twin_serves_as_well() -> None:
    """Else there would be no training where google_crc32c has no compiled part."""
    script = (
        "import sys; sys.modules['google_crc32c._crc32c'] = None\n"
        "import numpy as np\n"
        "from numba import njit\n"
        "from pipeline.store.checksum import crc32c_of_bytes, know_crc32c\n"
        "know_crc32c()\n"
        "crc32c_of = njit(nogil=True)(lambda x: crc32c_of_bytes(np.uint64(x.ctypes.data), np.uint64(9)))\n"
        "print(hex(crc32c_of(np.frombuffer(b'123456789', np.uint8))))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "0xe3069283", done.stderr  # the check value of CRC-32C, RFC 3720
