"""How many cores this process may use: the one definition, for torch's threads and the simulation's."""

from __future__ import annotations

import math
import os
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Cores that the process is allowed (affinity), capped by the CPU quotas of its control groups, at least 1.

    A group's quota binds all groups below it, so the smallest from the process's own group up to the mount's root counts; part of a core
    counts as one.

    Args:
        mount: where control groups are mounted.
        membership: the file that says which groups the process is in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, *_quotas(mount, membership))))


def _quotas(mount: Path, membership: Path) -> list[float]:
    """Cores granted by every group that the process is in: version 2 (`cpu.max`) or version 1 (`cpu.cfs_quota_us`); at least one entry.

    Inside a container the file of memberships may name a path of the host that is not mounted; the mount's root is then the container's own
    group, and what lies on the way to the missing path says nothing.
    """
    own = {"": "", "cpu": ""}
    for line in lines_of(membership):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "" or "cpu" in controllers.split(","):
            own["cpu" if controllers else ""] = path.strip("/")
    limits = []
    for group in groups_upwards(mount, own[""]):
        limits.append(_ratio(lines_of(group / "cpu.max")))
    for version_1 in (mount / "cpu", mount / "cpu,cpuacct"):
        for group in groups_upwards(version_1, own["cpu"]):
            limits.append(_ratio(lines_of(group / "cpu.cfs_quota_us") + lines_of(group / "cpu.cfs_period_us")))
    return limits


def groups_upwards(root: Path, path: str) -> list[Path]:
    """The folder `path` below `root` and every one above it, `root` included."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _ratio(lines: list[str]) -> float:
    """Quota over period, in cores; infinite where there is no limit (`max`, -1, no such file)."""
    try:
        quota, period = (float(word) for line in lines for word in line.split())
    except ValueError:
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def lines_of(path: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
