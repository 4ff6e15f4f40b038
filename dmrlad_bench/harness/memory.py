"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from dmrlad_bench.envs.cores import MEMBERSHIP, MOUNT, groups_upwards, lines_of

MEMINFO = Path("/proc/meminfo")
UNLIMITED = 2**60  # bytes from which on version 1 means that there is no limit


def available_memory(meminfo: Path = MEMINFO, mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> tuple[int, str] | None:
    """Bytes, and what limits them: the smallest limit of the process's control groups, or what the machine has left, swap included.

    None where the system says neither.

    Args:
        meminfo: where the kernel says what is left.
        mount: where control groups are mounted.
        membership: the file that says which groups the process is in.
    """
    limits = [(limit, "limit of the control group") for limit in _group_limits(mount, membership)]
    found = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines_of(meminfo)}
    if "MemAvailable" in found:
        left = sum(1024 * int(found[name][0]) for name in ("MemAvailable", "SwapFree") if name in found)
        limits.append((left, "left on this machine"))
    elif not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # no Linux
        limits.append((os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "of this machine"))
    return min(limits, default=None)


def device_memory(device: str) -> tuple[int, str] | None:
    """As `available_memory`, of the GPU that the learner is on; None where it is on none."""
    if device != "cuda":
        return None
    import torch

    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, "of the GPU"


def _group_limits(mount: Path, membership: Path) -> list[int]:
    """The limits of all groups that the process is in: version 2 (`memory.max`) and version 1 (`memory.limit_in_bytes`)."""
    own = {"": "", "memory": ""}
    for line in lines_of(membership):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "" or "memory" in controllers.split(","):
            own["memory" if controllers else ""] = path.strip("/")
    files = [group / "memory.max" for group in groups_upwards(mount, own[""])]
    files += [group / "memory.limit_in_bytes" for group in groups_upwards(mount / "memory", own["memory"])]
    numbers = [int(text) for path in files for text in lines_of(path)[:1] if text.strip().isdigit()]
    return [number for number in numbers if number < UNLIMITED]
