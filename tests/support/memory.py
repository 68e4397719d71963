"""How much memory a process has, and how long it has computed."""

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


def cpu_seconds(pid: int) -> float:
    """Seconds for which it has computed; 0 where the platform does not say."""
    if not known():
        return 0.0
    # Behind the name, which may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
