"""Make glibc's malloc keep the pages of fetched records: half of a fetch's cost is page faults.

Owns the process-wide allocator settings. Must not know who allocates. The client maps and unmaps every large fetch
buffer anew, and the kernel clears each page again; kept pages cost nothing a second time.
"""

import ctypes

MMAP_THRESHOLD_BYTES = 32 * 2**20
"""Smaller blocks come from the heap, so that their pages stay; a fetch (`settings.FETCH_BYTES_MAX`) is well below."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_KEPT = (
    # One arena: the fetch thread allocates what the loop's thread frees, and a second arena would keep twice as much.
    (_M_ARENA_MAX, 1),
    (_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
    (_M_TRIM_THRESHOLD, 2**30),
    (_M_TOP_PAD, 64 * 2**20),
)


def keep_pages() -> bool:
    """Set the allocator so, once and before the first client is made; tell whether it took the settings.

    Does nothing, and fails never, where the C library is another one (musl, macOS) or malloc is replaced.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(mallopt(parameter, value) == 1 for parameter, value in _KEPT)
