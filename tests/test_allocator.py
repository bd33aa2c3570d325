"""Freed memory stays with a process on a CPU, and goes back where it must."""

import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these thresholds")
FAULTS = """
import resource
from nnunet_livseg.core.allocator import keep_pages, kept_pages
def work(times=10, mib=64):  # 16384 pages each time, unless they are kept
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times): b"x" * (mib << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
"""


def run(code):
    """In a process of its own: thresholds belong to the process."""
    subprocess.run([sys.executable, "-c", FAULTS + code], check=True)


@glibc
def test_freed_pages_are_used_again():
    run("assert keep_pages('cpu'); work(1); assert work() < 20_000")


@glibc
def test_pages_go_back_after_the_block():
    run(
        "before = resident()\n"
        "with kept_pages('cpu'): work(1); assert work() < 20_000; assert resident() > before + 60\n"
        "assert resident() < before + 30, resident()\n"
        "assert work() > 100_000, 'the usual thresholds are back'"
    )


@glibc
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_other_devices_are_left_alone(device):
    run(f"assert not keep_pages('{device}'); work(1); assert work() > 100_000")


def test_other_c_libraries_are_left_alone():
    run("import platform; platform.libc_ver = lambda: ('', ''); assert not keep_pages('cpu')")
