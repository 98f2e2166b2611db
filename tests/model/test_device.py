"""Memory on a CPU is used again from step to step."""

import platform
import subprocess
import sys

import pytest
import torch

from model import device
from model.device import reuse_freed_memory

# Of ten blocks of 64 MB, first as it is, then with memory that is used again.
FAULTS = """
import resource
import torch
from model.device import reuse_freed_memory

def faults_of_some():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults_of_some())
reuse_freed_memory(torch.device("cpu"))
faults_of_some()
print(faults_of_some())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_freed_blocks_are_taken_again_without_page_faults() -> None:
    """Each step would get its memory anew from the system, a tenth of its time."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 2


def test_nothing_is_set_for_a_gpu_or_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without this setting must not end training before it begins."""

    def fail(_: object) -> None:
        raise AssertionError("the C library was asked")

    monkeypatch.setattr("model.device.ctypes.CDLL", fail)
    reuse_freed_memory(torch.device("meta"))
    monkeypatch.setattr("model.device.platform.libc_ver", lambda: ("", ""))
    reuse_freed_memory(torch.device("cpu"))


def test_an_old_library_that_refuses_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the second setting alone, glibc gives back every block above 128 kB: slower than before."""
    asked = []

    class Old:
        def mallopt(self, setting: int, value: int) -> int:
            asked.append((setting, value))
            return 0

    monkeypatch.setattr("model.device.platform.libc_ver", lambda: ("glibc", "2.17"))
    monkeypatch.setattr("model.device.ctypes.CDLL", lambda _: Old())
    reuse_freed_memory(torch.device("cpu"))
    assert asked == [(device.M_MMAP_THRESHOLD, device.LARGEST_KEPT)]
