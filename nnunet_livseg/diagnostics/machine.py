"""What this machine is: processor, cores, memory."""

import os
import platform
from pathlib import Path

GIB = 2**30


def processor_name() -> str:
    """Name of the processor as its maker writes it, or its architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use; a container or a job may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def memory_gib() -> float:
    """Memory of the machine in GiB.

    Raises:
        Exception: The operating system does not say (Windows).
    """
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
