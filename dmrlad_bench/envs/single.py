"""One environment of a task family, Gymnasium's `Env`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.episodes import check_options
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.family import family as family_of
from dmrlad_bench.envs.framing import SIZE, Framing
from dmrlad_bench.envs.metaworld_episodes import episodes_of
from dmrlad_bench.envs.rendering import MODES, Renderer, available_modes, frames_per_second


class DMRLADEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task family as a Gymnasium environment; `gymnasium.make("DMRLAD/CheetahVelSparse-v0", split="train")`.

    Each reset picks a task: `options={"task": index or value}` (integers are indices into the split, floats are values), else
    the constructor's `task`, else a uniform draw from the split. The task never shows in observations unless
    `task_observable`, which appends it. Where tasks change inside an episode, `info["task"]` is the one in force in the step lived,
    and an observation shows the next step's. Episodes are truncated after the family's horizon.

    `info` at every step: `success` (bool), `is_success` (the same under the name that Stable-Baselines3 looks for), `outcome` and
    `task` (float32 vectors; `family.reward(outcome, task)` is the reward), `dense_reward`, `sparse_reward`. At reset: `task`.
    """

    metadata: dict[str, Any] = {"render_modes": list(MODES), "render_fps": 20}

    def __init__(
        self,
        family: TaskFamily | str | Path,
        split: str = "train",
        task: Any = None,
        task_observable: bool = False,
        render_mode: str | None = None,
        *,
        width: int = SIZE,
        height: int = SIZE,
        camera_id: int | None = None,
        camera_name: str | None = None,
    ) -> None:
        """Create the environment.

        Args:
            family: task family, its Gymnasium id, bare name or card file.
            split: where tasks are drawn from.
            task: index or value of the task that every episode is in, where `reset` names none.
            task_observable: append the task to observations.
            render_mode: `rgb_array`, `human` (a window) or None.
            width, height: of pictures, in pixels.
            camera_id, camera_name: one of the cameras of the body's model, by number (-1: MuJoCo's free one) or by name; by
                default the body's own view. The model is known, and the camera checked, from the first picture on.

        Raises:
            CardError: any argument that is not valid.
        """
        self.family = family if isinstance(family, TaskFamily) else family_of(family)
        self.render_mode = render_mode
        framing = Framing(width, height, camera_id, camera_name)
        framing.check(self.family.id)
        self._episodes = episodes_of(self.family)(
            self.family, 1, split=split, task=task, task_observable=task_observable, threads=1, horizon=self.family.horizon
        )
        body = self._episodes.body
        self.renderer = None if render_mode is None else Renderer(self.family, body, render_mode, framing)
        drawn = type(body).drawing is not Body.drawing
        self.metadata = {"render_modes": available_modes() if drawn else [], "render_fps": frames_per_second(body)}
        self.observation_space = self._episodes.observation_space
        self.action_space = self.family.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; `seed` fixes the task draw and the initial state, whatever ran before.

        Raises:
            CardError: unknown option or a task that is not valid.
        """
        chosen = check_options(options, ("task",), self.family.id)
        super().reset(seed=seed)
        self._episodes.reset(0, self.np_random, chosen.get("task"))
        observation = self._episodes.observe()[0]
        if self.render_mode == "human":
            self.render()
        return observation, {"task": self._episodes.tasks[0].copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step with `(action_dim,)` numbers, clipped to [-1, 1]; raises `CardError` for any other shape or NaN."""
        if not self._episodes.started:
            raise ResetNeeded(f"{self.family.id}: call reset before step")
        step = self._episodes.step(np.asarray(action)[None])
        info: dict[str, Any] = {
            "success": bool(step.info["success"][0]),
            "is_success": bool(step.info["is_success"][0]),
            "outcome": step.info["outcome"][0],
            "task": step.info["task"][0],
            "dense_reward": float(step.info["dense_reward"][0]),
            "sparse_reward": float(step.info["sparse_reward"][0]),
        }
        if self.render_mode == "human":
            self.render()
        return step.observation[0], float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The body at its task, with a marker that shows the task: `(height, width, 3)` uint8 in mode `rgb_array`, None in `human`.

        Raises:
            CardError: no renderer works here, or the model has no such camera.
        """
        if self.renderer is None:
            return None
        if not self._episodes.started:
            raise ResetNeeded(f"{self.family.id}: call reset before render")
        return self.renderer.draw(self._episodes.drawing(0), self._episodes.tasks[0])

    def close(self) -> None:
        """Free the simulator and the renderer; closing twice is fine."""
        if self.renderer is not None:
            self.renderer.close()
        self._episodes.close()
