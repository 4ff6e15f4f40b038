"""What a run runs on: host, device and package versions; torch's threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.harness.threads import Threads, threads_for
from dmrlad_bench.reports.results import Host

PACKAGES = ("dmrlad-bench", "torch", "numpy", "scipy", "mujoco", "gymnasium", "metaworld", "safetensors")
SECONDS_TO_DRAW = 60
PICTURE = """
import sys
try:
    import gymnasium, dmrlad_bench
    env = gymnasium.make("DMRLAD/PointGoal-v0", render_mode="rgb_array")
    env.reset(seed=0)
    env.render()
except Exception as error:
    sys.exit(print(" ".join(str(error).split())) or 1)
print(env.unwrapped.renderer.library)
"""


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def host(device: str) -> Host:
    """The machine, and the accelerator where `device` is one."""
    accelerator = None
    if device == "cuda":
        import torch

        accelerator = torch.cuda.get_device_name()
    return Host(
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        accelerator=accelerator,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")


@contextmanager
def torch_settings(threads: int, device: str) -> Iterator[None]:
    """Let torch use so many threads, and on a GPU TF32 in products of matrices; afterwards all is as before."""
    import torch

    before = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cuda.matmul.allow_tf32 = before[1]


def diagnosis() -> dict[str, str]:
    """What a bug report needs to say."""
    from dmrlad_bench.harness.run import resolve_device

    device = resolve_device("auto")

    def default(budget: str) -> Threads:
        return threads_for(None, None, budget)

    machine = host(device)
    return {
        **packages(),
        "system": machine.system,
        "processor": f"{machine.processor}, {machine.machine}",
        "cores": f"{machine.cores}, allowed {available_cores()}",
        "threads of a run": f"torch {default('quick').torch}, budgets standard and full {default('full').torch}; "
        f"simulation {default('quick').simulation}",
        "device": device if machine.accelerator is None else f"{device}: {machine.accelerator}",
        "renderer": _renderer(),
    }


def _renderer() -> str:
    """Whether a user's picture can be drawn here, and what draws it. Tried in a process of its own: a broken driver may abort it."""
    chosen = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '(not set)')}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": SECONDS_TO_DRAW, "env": environment}
    try:
        done = subprocess.run([sys.executable, "-c", PICTURE], **options)
    except subprocess.TimeoutExpired:
        return f"{chosen}: no answer within {SECONDS_TO_DRAW} s"
    said = done.stdout.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return f"{chosen}: draws, through {said[0]}" if done.returncode == 0 else f"{chosen}: does not draw: {said[0]}"
