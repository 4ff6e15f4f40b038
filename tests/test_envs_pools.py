"""Environments of a process share the threads that step them, one pool for each number of threads."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from dmrlad_bench.envs import pools
from dmrlad_bench.envs.bodies import HalfCheetah


def states_of(body: HalfCheetah, rows: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.stack([body.initial_state(generator) for _ in range(rows)])


def walked(body: HalfCheetah, seed: int, rows: int = 5, steps: int = 30) -> np.ndarray:
    state, generator = states_of(body, rows, seed), np.random.default_rng(seed)
    for _ in range(steps):
        state = body.step(state, generator.uniform(-1, 1, (rows, 6)))
    return state


def test_bodies_share_a_pool_and_the_last_one_ends_it() -> None:
    before = dict(pools._pools)
    one, two, other = HalfCheetah(threads=3), HalfCheetah(threads=3), HalfCheetah(threads=5)
    for body in (one, two, other):
        walked(body, 0, steps=1)
    assert set(pools._pools) - set(before) == {3, 5}
    assert pools._pools[3].holders == 2
    one.close()
    one.close()
    assert pools._pools[3].holders == 1
    np.testing.assert_array_equal(walked(two, 1), walked(one, 1))  # a closed body takes hold again
    for body in (one, two, other):
        body.close()
    assert pools._pools == before


def test_a_body_that_nobody_refers_to_lets_go() -> None:
    body = HalfCheetah(threads=3)
    walked(body, 0, steps=1)
    del body
    gc.collect()
    assert 3 not in pools._pools


def test_one_thread_takes_no_pool() -> None:
    body = HalfCheetah(threads=1)
    walked(body, 0, steps=1)
    assert 1 not in pools._pools and 0 not in pools._pools
    body.close()


def test_bodies_stepped_from_threads_of_the_program_at_once_do_not_disturb_each_other() -> None:
    alone = HalfCheetah(threads=1)
    expected = [walked(alone, seed) for seed in range(4)]
    bodies, found = [HalfCheetah(threads=2) for _ in range(4)], {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: walked(bodies[seed], seed)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_array_equal(found[seed], expected[seed])
    for body in (*bodies, alone):
        body.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_pools_of_its_own() -> None:
    body = HalfCheetah(threads=2)
    expected = walked(body, 0)
    child = os.fork()
    if child == 0:
        own = HalfCheetah(threads=2)
        os._exit(0 if np.array_equal(walked(own, 0), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    body.close()
