"""The cores that a process may use: affinity, and the quotas of its control groups in made-up folders of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmrlad_bench.envs.cores import available_cores

NONE = "0::/\n"


def cores(folder: Path, files: dict[str, str], membership: str = NONE) -> int:
    """`available_cores` where the mount holds `files`, and the process is in the groups of `membership`."""
    for name, text in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "cgroup").write_text(membership)
    return available_cores(folder / "mount", folder / "cgroup")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.parametrize(("text", "expected"), [("max 100000\n", 8), ("300000 100000\n", 3), ("250000 100000\n", 3), ("5000 100000\n", 1)])
def test_version_2(tmp_path: Path, text: str, expected: int) -> None:
    assert cores(tmp_path, {"cpu.max": text}) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", 8), ("400000\n", 4), ("150000\n", 2), ("1000\n", 1)])
@pytest.mark.parametrize("controller", ["cpu", "cpu,cpuacct"])
def test_version_1(tmp_path: Path, controller: str, quota: str, expected: int) -> None:
    assert cores(tmp_path, {f"{controller}/cpu.cfs_quota_us": quota, f"{controller}/cpu.cfs_period_us": "100000\n"}) == expected


def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "a/cpu.max": "200000 100000\n",
        "a/b/cpu.max": "600000 100000\n",
        "a/b/c/cpu.max": "max 100000\n",
        "other/cpu.max": "1000 100000\n",
    }
    assert cores(tmp_path, files, "0::/a/b/c\n") == 2
    assert cores(tmp_path, {"a/cpu.max": "max 100000\n"}, "0::/a/b/c\n") == 6


def test_groups_of_version_1_are_found_by_their_controller(tmp_path: Path) -> None:
    files = {"cpu/jobs/one/cpu.cfs_quota_us": "300000\n", "cpu/jobs/one/cpu.cfs_period_us": "100000\n"}
    membership = "9:name=systemd:/\n4:memory:/jobs/two\n1:cpu,cpuacct:/jobs/one\n0::/\n"
    assert cores(tmp_path, files, membership) == 3
    assert cores(tmp_path, files, membership.replace("/jobs/one", "/jobs/two")) == 8


def test_a_path_of_the_host_that_is_not_mounted_leaves_the_container_s_own_quota(tmp_path: Path) -> None:
    assert cores(tmp_path, {"cpu.max": "200000 100000\n"}, "0::/docker/0123/../x\n") == 2


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3\n", "100000 0\n"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, text: str) -> None:
    assert cores(tmp_path, {"cpu.max": text}, "no colons\n") == 8


def test_affinity_is_a_limit_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert available_cores(tmp_path / "nothing", tmp_path / "none") == 1
    assert cores(tmp_path, {"cpu.max": "400000 100000\n"}) == 1
    assert available_cores() >= 1  # this machine's own files
