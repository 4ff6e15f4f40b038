"""What stops the program from outside: signals to it, to its whole group, twice; and simulator processes that are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_agent import CountingAgent
from counting_runs import run
from program import PATIENCE, PROGRAM, SMOKE, started, wait_for_checkpoint

from dmrlad_bench.cards.family import load_family
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.metaworld_workers import SimulatorEnded
from dmrlad_bench.harness import session, train
from dmrlad_bench.harness.api import evaluate, plan
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.signals import SAME_REQUEST, STOPPING, interrupt_on_signals

SLOW = ["--set", "schedule.iterations=100000", "--quiet"]
SAVED = r"dmrlad-bench: interrupted: iteration (\d+) is saved in (.*); continue with: dmrlad-bench run .* --resume$"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts back what handled signals before."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_closed_terminal_is_a_termination_signal(tmp_path: Path) -> None:
    process = started(*SMOKE, *SLOW, "--out", tmp_path)
    folder = tmp_path / "PointGoal" / "dmrlad--smoke--seed0"
    wait_for_checkpoint(folder, process, 2)
    process.send_signal(signal.SIGHUP)
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, printed
    saved = re.fullmatch(SAVED, printed.removesuffix("\n"))
    assert saved and (folder / f"checkpoint-{int(saved[1]):06d}.json").exists(), printed


def test_a_signal_to_the_whole_group_says_of_every_worker_what_is_saved(tmp_path: Path) -> None:
    """As schedulers send it: each worker hears of it twice, from them and from its parent."""
    seeds = [part for seed in range(2) for part in ("--seed", str(seed))]
    command = [*PROGRAM, *SMOKE, *seeds, *SLOW, "--jobs", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for seed in range(2):
        wait_for_checkpoint(tmp_path / "PointGoal" / f"dmrlad--smoke--seed{seed}", process)
    os.killpg(process.pid, signal.SIGTERM)
    _, printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, printed
    lines = [re.fullmatch(SAVED, line) for line in printed.splitlines()]
    assert len(lines) == 2 and all(lines), printed


def test_signals_that_follow_soon_are_the_same_request(handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("dmrlad_bench.harness.signals.time.monotonic", lambda: clock[0])
    interrupt_on_signals()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for same in STOPPING:
            signal.raise_signal(same)
        clock[0] += SAME_REQUEST


def test_nohup_is_left_alone(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_on_signals()
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_second_signal_while_stopping_does_not_lose_the_message(
    tmp_path: Path, handlers: None, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(agent: CountingAgent, trials: Any) -> Any:
        if len(agent.replay) == 2:
            signal.raise_signal(signal.SIGTERM)
        return plain(agent, trials)

    def again(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return message(*arguments, **options)

    counting()
    plain, message = CountingAgent.learn, train.interrupted
    monkeypatch.setattr(CountingAgent, "learn", learn)
    monkeypatch.setattr(train, "interrupted", again)
    interrupt_on_signals()
    with pytest.raises(Interrupted, match=r"interrupted: iteration 2 is saved in .*; continue with: .* --resume$"):
        run(tmp_path)


@pytest.mark.parametrize("where", ["make_agent", "load_checkpoint"])
def test_an_interrupt_while_a_run_is_taken_up_says_what_was_saved_before(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    counting()
    result = run(tmp_path).folder / "result.json"
    result.unlink()
    monkeypatch.setattr(session, where, interrupt)
    with pytest.raises(Interrupted, match="iteration 3 is saved"):
        run(tmp_path, resume=True)


# ---- simulator processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_tasks() -> TaskFamily:
    """Meta-World's ML1-reach with two tasks a split: two processes of one environment each, and short episodes."""
    card = load_family("ML1Reach")
    tasks = card.tasks.model_copy(update={"train": card.tasks.train[:2], "test": card.tasks.test[:2], "ood": ()})
    return TaskFamily(card.model_copy(update={"tasks": tasks, "horizon": 4}))


def test_a_killed_simulator_is_one_line(two_tasks: TaskFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = plan("random", "ML1Reach", threads=2, device="cpu", budget="smoke", out=tmp_path)
    config = config.model_copy(update={"family": two_tasks.card})

    def kill_one(agent: Any, transition: Any) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        simulators = [child for child in children if b"metaworld_workers" in Path(f"/proc/{child}/cmdline").read_bytes()]
        os.kill(int(simulators[0]), signal.SIGKILL)

    monkeypatch.setattr("dmrlad_bench.agents.simple.RandomAgent.observe", kill_one)
    for resume in (False, True):
        with pytest.raises(RunFailed) as caught:
            train.train_run(config, folder, resume=resume, command=["test"], quiet=True)
        assert str(caught.value) == f"{folder}: stopped: a simulator process was killed (out of memory?); continue with --resume"
    with pytest.raises(RunFailed, match=r"a simulator process was killed \(out of memory\?\)"):
        evaluate(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", ["CheetahVel", "ML1Reach"])
def test_a_forked_process_steps_and_closes_environments_of_its_parent(name: str, two_tasks: TaskFamily) -> None:
    """Half-way through an episode, with simulators of its own; then the parent goes on as if nothing had been."""
    family = two_tasks if name == "ML1Reach" else TaskFamily(load_family(name))
    environment = family.make_vec(2, threads=2)
    environment.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 2, family.action_dim))
    environment.step(actions[0])
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs ends by this
        seen = [environment.step(action)[0] for action in actions[1:]]
        environment.close()
        os.write(sending, np.array(seen).tobytes())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    seen = np.array([environment.step(action)[0] for action in actions[1:]])
    assert os.read(receiving, seen.nbytes) == seen.tobytes()
    environment.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_between_reset_and_the_first_state(two_tasks: TaskFamily) -> None:
    environment = two_tasks.make_vec(2, threads=2)
    first = environment.reset(seed=0)[0]
    environment._episodes.reset(0, np.random.default_rng(3), 0)  # begun, and not yet asked for
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.write(sending, environment._episodes.observe().tobytes())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    own = environment._episodes.observe()
    assert os.read(receiving, own.nbytes) == own.tobytes()
    assert not np.array_equal(own, first)
    environment.close()


def test_a_simulator_that_ended_otherwise_says_how(two_tasks: TaskFamily) -> None:
    environment = two_tasks.make_vec(2, threads=2)
    environment.reset(seed=0)
    workers: Any = environment._episodes._simulators  # pyright: ignore
    workers._processes[0].send_signal(signal.SIGQUIT)
    with pytest.raises(SimulatorEnded, match="a simulator process was ended by SIGQUIT"):
        for _ in range(3):
            environment.step(np.zeros((2, 4)))
    environment.close()
