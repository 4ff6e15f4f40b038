"""Many environments of a task family side by side, Gymnasium's `VectorEnv`, stepped in native threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.envs.episodes import Step, check_options
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.family import family as family_of
from dmrlad_bench.envs.framing import SIZE, Framing
from dmrlad_bench.envs.metaworld_episodes import episodes_of
from dmrlad_bench.envs.rendering import Renderer, frames_per_second

MODES = ("rgb_array",)  # one window for all would have to choose which row it shows
SCENES_KEPT = 25  # models loaded for drawing, where rows have models of their own
Seeds = int | Sequence[int | None] | None


class DMRLADVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` environments with the numbers of as many single ones: same seeds, same actions, equal trajectories.

    `gymnasium.make_vec("DMRLAD/CheetahVelSparse-v0", num_envs=10, vectorization_mode="vector_entry_point")`. What environments
    return and how they reset by themselves follows Gymnasium's `SyncVectorEnv`, with one difference: in mode `DISABLED`
    an environment whose episode is over holds still until it is reset (same observation, reward 0, no `info`).
    """

    def __init__(
        self,
        num_envs: int,
        family: TaskFamily | str | Path,
        split: str = "train",
        task: Any = None,
        task_observable: bool = False,
        render_mode: str | None = None,
        threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        *,
        width: int = SIZE,
        height: int = SIZE,
        camera_id: int | None = None,
        camera_name: str | None = None,
    ) -> None:
        """Create the environments.

        Args:
            num_envs: how many.
            family: task family, its Gymnasium id, bare name or card file.
            split: where tasks are drawn from.
            task: index or value of the task that all environments start in, where `reset` names none.
            task_observable: append the task to observations.
            render_mode: `rgb_array` or None.
            threads: native threads that step the bodies; by default the cores that the process may use. Where pictures are asked
                for, Meta-World's benchmarks, whose threads are processes, use one.
            autoreset_mode: `NextStep`, `SameStep` or `Disabled`.
            max_episode_steps: truncate earlier than the family's horizon.
            width, height: of each environment's picture, in pixels.
            camera_id, camera_name: as of the single environment.

        Raises:
            CardError: any argument that is not valid.
        """
        self.family = family if isinstance(family, TaskFamily) else family_of(family)
        if render_mode is not None and render_mode not in MODES:
            raise CardError(
                f"{self.family.id}: render_mode {render_mode!r} is not supported side by side; accepted: None, {', '.join(MODES)}"
            )
        framing = Framing(width, height, camera_id, camera_name)
        framing.check(self.family.id)
        for name, value in {"num_envs": num_envs, "threads": threads, "max_episode_steps": max_episode_steps}.items():
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise CardError(f"{self.family.id}: {name} must be an integer of at least 1, got {value!r}")
        try:
            self._autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            accepted = ", ".join(mode.value for mode in AutoresetMode)
            raise CardError(f"{self.family.id}: unknown autoreset_mode {autoreset_mode!r}; accepted: {accepted}") from None
        self.num_envs, self.render_mode = num_envs, render_mode
        kind = episodes_of(self.family)
        at_once = 1 if kind.by_processes and render_mode is not None else threads or available_cores()
        self._episodes = kind(
            self.family,
            num_envs,
            split=split,
            task=task,
            task_observable=task_observable,
            threads=min(at_once, num_envs),
            horizon=min(max_episode_steps or self.family.horizon, self.family.horizon),
        )
        body = self._episodes.body
        self.renderer = None if render_mode is None else Renderer(self.family, body, render_mode, framing, min(num_envs, SCENES_KEPT))
        drawn = type(body).drawing is not Body.drawing
        self.metadata = {
            "render_modes": list(MODES) if drawn else [],
            "render_fps": frames_per_second(body),
            "autoreset_mode": self._autoreset_mode,
        }
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = self.family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator] = [np_random()[0] for _ in range(num_envs)]
        self._terminated = np.zeros(num_envs, dtype=bool)
        self._truncated = np.zeros(num_envs, dtype=bool)
        self._never_reset = np.ones(num_envs, dtype=bool)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start episodes, in all environments or in those of a mask.

        Args:
            seed: an int (environment i gets `seed + i`), or one int or None for each environment. It fixes the task draw and
                the initial state, whatever ran before.
            options: `task`: one integer index into the split, `(num_envs,)` integer indices, or `(num_envs, task_dim)` float
                values. `reset_mask`: `(num_envs,)` bool, which environments to reset; all by default.

        Raises:
            CardError: seeds, options or tasks that are not valid.
        """
        self._check_open()
        chosen = check_options(options, ("task", "reset_mask"), self.family.id)
        mask = self._mask(chosen.get("reset_mask"))
        seeds, tasks = self._seeds(seed), self._tasks(chosen.get("task"))
        chosen_tasks = [None if task is None else self._episodes.chosen_task(task) for task in tasks]  # all, before any is reset
        for row in np.flatnonzero(mask).tolist():
            if seeds[row] is not None:
                self._generators[row] = np_random(seeds[row])[0]
            self._episodes.reset(row, self._generators[row], chosen_tasks[row])
        self._terminated[mask] = self._truncated[mask] = self._never_reset[mask] = False
        return self._episodes.observe(), _masked({"task": self._episodes.tasks}, mask)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step with actions `(num_envs, action_dim)`, clipped to [-1, 1]; raises `CardError` for any other shape or NaN."""
        self._check_open()
        if self._never_reset.any():
            raise ResetNeeded(f"{self.family.id}: call reset before step")
        over = self._terminated | self._truncated
        if self._autoreset_mode is AutoresetMode.SAME_STEP:
            return self._same_step(self._episodes.step(actions))
        step = self._episodes.step(actions, held=over)
        step.reward[over] = 0.0
        if self._autoreset_mode is AutoresetMode.DISABLED:
            self._terminated = np.where(over, self._terminated, step.terminated)
            self._truncated = np.where(over, self._truncated, step.truncated)
            return step.observation, step.reward, self._terminated.copy(), self._truncated.copy(), _masked(step.info, ~over)
        self._terminated, self._truncated = step.terminated & ~over, step.truncated & ~over
        info, observation = _masked(step.info, ~over), step.observation
        if over.any():
            observation = self._restart(over)
            info.update(_masked({"task": self._restarted_tasks(step, over)}, np.ones(self.num_envs, dtype=bool)))
        return observation, step.reward, self._terminated.copy(), self._truncated.copy(), info

    def _same_step(self, step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        over = step.terminated | step.truncated
        info, observation = _masked(step.info, ~over), step.observation
        if over.any():
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(over).tolist():
                final[row] = observation[row]
            observation = self._restart(over)
            info.update(_masked({"task": self._restarted_tasks(step, over)}, np.ones(self.num_envs, dtype=bool)))
            info.update({"final_obs": final, "_final_obs": over.copy(), "final_info": _masked(step.info, over), "_final_info": over.copy()})
        return observation, step.reward, step.terminated, step.truncated, info

    def _restart(self, mask: np.ndarray) -> np.ndarray:
        for row in np.flatnonzero(mask).tolist():
            self._episodes.reset(row, self._generators[row])
        return self._episodes.observe()

    def _restarted_tasks(self, step: Step, mask: np.ndarray) -> np.ndarray:
        """The new tasks of restarted rows, and of the others the task that was in force in this step, not yet the next one's."""
        return np.where(mask[:, None], self._episodes.tasks, step.info["task"])

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"{self.family.id}: the vector environment is closed")

    def _mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise CardError(f"{self.family.id}: reset_mask must be a bool array of shape ({self.num_envs},) with a True, got {mask!r}")
        return mask

    def _seeds(self, seed: Seeds) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise CardError(f"{self.family.id}: seed must be an int or a list of {self.num_envs}, one an environment, got {len(seed)}")
        return [None if entry is None else int(entry) for entry in seed]

    def _tasks(self, task: Any) -> list[Any]:
        if task is None:
            return [None] * self.num_envs
        try:
            entries = np.asarray(task)
        except ValueError:  # ragged
            entries = np.empty(0)
        whole = np.issubdtype(entries.dtype, np.integer)
        if whole and entries.shape == ():
            return [int(entries)] * self.num_envs
        if entries.shape == ((self.num_envs,) if whole else (self.num_envs, self.family.task_dim)):
            return list(entries)
        accepted = f"an integer, ({self.num_envs},) integers, or ({self.num_envs}, {self.family.task_dim}) floats"
        raise CardError(f"{self.family.id}: option 'task' of shape {entries.shape} and type {entries.dtype}; accepted: {accepted}")

    def render(self) -> tuple[np.ndarray, ...] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One picture a row, as of the single environment: `(height, width, 3)` uint8 each; None without a `render_mode`.

        Raises:
            CardError: no renderer works here, or the model has no such camera.
        """
        self._check_open()
        if self.renderer is None:
            return None
        if self._never_reset.any():
            raise ResetNeeded(f"{self.family.id}: call reset before render")
        pictures = (self.renderer.draw(self._episodes.drawing(row), self._episodes.tasks[row]) for row in range(self.num_envs))
        return tuple(picture for picture in pictures if picture is not None)

    def close_extras(self, **kwargs: Any) -> None:
        """End the native threads, free the renderer."""
        if self.renderer is not None:
            self.renderer.close()
        self._episodes.close()


def _masked(info: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, Any]:
    """Gymnasium's vector form of `info`: zeros where the mask is False, and the mask itself under `_key`."""
    masked: dict[str, Any] = {}
    if mask.any():
        for key, value in info.items():
            masked[key] = value.copy()
            masked[key][~mask] = 0
            masked[f"_{key}"] = mask.copy()
    return masked
