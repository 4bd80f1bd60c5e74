"""The allocator's settings, each in a process of its own: they cannot be taken back."""

import platform
import subprocess
import sys

import pytest

SHOW_REUSE = """
import ctypes, resource
from consumer.kafka.memory import keep_pages
if {keep}:
    keep_pages()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def fetch_and_free():
    blocks = [libc.malloc(8 * 2**20) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 8 * 2**20)
    for block in blocks:
        libc.free(block)
for _ in range(3):
    fetch_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fetch_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

ELSEWHERE = """
import ctypes
from unittest import mock
from consumer.kafka.memory import keep_pages
for error in (AttributeError, OSError):
    with mock.patch.object(ctypes, "CDLL", side_effect=error):
        assert keep_pages() is False
print("harmless")
"""


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_pages_of_fetch_buffers_are_kept() -> None:
    """Blocks as large as a fetch cost page faults once; without the settings they cost them every time."""
    assert int(run(SHOW_REUSE.format(keep=False))) > 10_000
    assert int(run(SHOW_REUSE.format(keep=True))) < 100


def test_other_c_libraries_are_left_alone() -> None:
    """Where there is no mallopt nothing is done, and nothing fails."""
    assert run(ELSEWHERE) == "harmless"
