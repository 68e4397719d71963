"""How much memory a process has."""

import os
from pathlib import Path


def known() -> bool:
    """Whether the platform says so."""
    return Path("/proc/self/statm").exists()


def resident(pid: int) -> int:
    """Bytes that it has now; 0 where the platform does not say."""
    if not known():
        return 0
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
