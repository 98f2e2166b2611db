"""The C library's own block copy and fill, for kernels: no loop that a compiler makes moves bytes faster.

Addresses are uint64, as `array.ctypes.data` gives them to a kernel. Nothing is checked here.
"""

from typing import Any

from numba import types

# Addresses as integers are passed like pointers on every platform that numba supports.
copy_bytes: Any = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
fill_bytes: Any = types.ExternalFunction("memset", types.uintp(types.uintp, types.intc, types.uintp))
