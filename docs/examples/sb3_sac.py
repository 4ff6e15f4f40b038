"""Stable-Baselines3's SAC, trained on the training tasks of a family without knowing which, and scored by the protocol."""

import time

import gymnasium
import numpy as np
from stable_baselines3 import SAC

import dmrlad_bench


class StableBaselines:
    """What the protocol asks of an agent; this one has no memory, so there is nothing to begin or to observe."""

    def __init__(self, model):
        self.model = model

    def begin_trial(self, num_envs):
        pass

    def act(self, observation, deterministic):
        return self.model.predict(np.asarray(observation, dtype=np.float32), deterministic=deterministic)[0]

    def observe(self, transition):
        pass


def main(env="DMRLAD/PointGoalSparse-v0", steps=97_200, seed=0, budget="quick", out="runs", **options):
    """Train for as many steps as the budget has, record the result, and return it."""
    began = time.perf_counter()
    model = SAC("MlpPolicy", gymnasium.make(env, split="train"), seed=seed, device="cpu", **options)
    model.learn(steps)
    return dmrlad_bench.record(
        StableBaselines(model),
        env,
        name="sb3-sac",
        seed=seed,
        budget=budget,
        environment_steps=model.num_timesteps,
        gradient_updates=model._n_updates,
        seconds=time.perf_counter() - began,
        out=out,
    )


if __name__ == "__main__":
    print(main())
