"""Make the pictures of the bodies: `python docs/pictures.py` writes `docs/pictures/<body>.png`."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np

from dmrlad_bench.envs.single import DMRLADEnv

SHOWN = {  # body -> a family, a training task, steps before the picture
    "point": ("PointGoalSparse", 20, 6),
    "half_cheetah": ("CheetahVelSparse", 40, 15),
    "hopper": ("HopperVelSparse", 40, 10),
    "walker2d": ("WalkerVelSparse", 40, 10),
    "ant": ("AntGoalSparse", 30, 10),
    "sawyer_reach": ("SawyerReachSparse", 3, 15),
    "sawyer_push": ("SawyerPushSparse", 3, 15),
    "sawyer_pick_place": ("SawyerPickPlaceSparse", 3, 15),
    "metaworld": ("ML10", 200, 5),  # a scene of a drawer
}


def write_all(folder: Path) -> None:
    """One picture of each body at a task, with the marker that shows the task."""
    folder.mkdir(exist_ok=True)
    for body, (family, task, steps) in SHOWN.items():
        env = DMRLADEnv(family, task=task, render_mode="rgb_array", height=360)
        env.reset(seed=0)
        for _ in range(steps):
            env.step(np.full(env.action_space.shape, 0.3))
        picture = env.render()
        assert picture is not None
        matplotlib.image.imsave(folder / f"{body}.png", picture)
        env.close()


if __name__ == "__main__":
    write_all(Path(__file__).resolve().parent / "pictures")
