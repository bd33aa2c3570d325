"""Memory pages that stay with a process, for networks on a CPU.

glibc takes every large array from the kernel and gives it back when it is freed, so each training step and each patch
asks for all its pages anew, and the kernel zeroes them again. With the thresholds below, freed arrays stay in the heap
for the next step. Only glibc (Linux) knows them; anywhere else nothing happens. Measured in
docs/evidence/performance.md.
"""

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

LARGEST = 2**30  # bytes; larger arrays, as logits of whole CTs, still go back at once
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(LARGEST), "MALLOC_TRIM_THRESHOLD_": str(2**40)}  # read at process start
_TRIM, _MMAP, _MMAP_MAX = -1, -3, -4  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX of malloc.h
_USUAL = {_TRIM: 128 * 1024, _MMAP: 128 * 1024, _MMAP_MAX: 65536}  # glibc's own at process start


def keep_pages(device_type: str) -> bool:
    """Keep freed memory in this process from now on; returns whether that was possible, and only for ``cpu``."""
    if device_type != "cpu" or not on_glibc():
        return False
    glibc = ctypes.CDLL(None)
    fits = glibc.mallopt(_MMAP, LARGEST) or glibc.mallopt(_MMAP_MAX, 0)  # old versions reject more than 32 MiB
    return bool(fits and glibc.mallopt(_TRIM, -1))


@contextmanager
def kept_pages(device_type: str) -> Iterator[None]:
    """Keep freed memory inside the block; what is free at its end goes back to the system."""
    kept = keep_pages(device_type)
    try:
        yield
    finally:
        if kept:
            for parameter, value in _USUAL.items():
                ctypes.CDLL(None).mallopt(parameter, value)
            ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def on_glibc() -> bool:
    """Whether this process runs on glibc."""
    return platform.libc_ver()[0] == "glibc"
