"""What a run runs on: host, device and package versions; torch's threads."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.harness.threads import Threads, threads_for
from dmrlad_bench.reports.results import Host

PACKAGES = ("dmrlad-bench", "torch", "numpy", "scipy", "mujoco", "gymnasium", "metaworld", "safetensors")


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
    """Whether MuJoCo can draw here. Tried in a process of its own: a missing display may abort it."""
    chosen = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '(not set)')}"
    script = (
        "import mujoco; model = mujoco.MjModel.from_xml_string('<mujoco/>'); data = mujoco.MjData(model); "
        "renderer = mujoco.Renderer(model, 32, 32); renderer.update_scene(data); renderer.render()"
    )
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return f"{chosen}: no answer within 60 s"
    if done.returncode == 0:
        return f"{chosen}: draws"
    fault = re.search(r"\w*Error: .*", done.stderr)
    return f"{chosen}: does not draw: {fault[0] if fault else f'exit code {done.returncode}'}"
