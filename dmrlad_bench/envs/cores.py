"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that the process is allowed (affinity), capped by the control group's quota, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(cgroups))))


def _quota(cgroups: Path) -> float:
    """Cores granted by version 2 (`cpu.max`) or version 1 (`cpu.cfs_quota_us`) of control groups; infinite without a limit."""
    limits = _numbers(cgroups / "cpu.max") or _numbers(cgroups / "cpu" / "cpu.cfs_quota_us", cgroups / "cpu" / "cpu.cfs_period_us")
    return limits[0] / limits[1] if len(limits) == 2 and min(limits) > 0 else math.inf


def _numbers(*paths: Path) -> list[float]:
    try:
        return [float(word) for path in paths for word in path.read_text().split()]
    except (OSError, ValueError):  # no such file, or the word "max": no limit
        return []
