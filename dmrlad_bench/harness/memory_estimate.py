"""The least memory that a run needs, reckoned from its configuration before it starts, and held against what there is.

Counted are the arrays whose sizes the configuration sets, in bytes of float32 unless said otherwise:

- *replay*: every stored step (observation and next observation, action, reward, outcome, episode, flags) and its belief, for all
  `schedule.replay_trials` trials, for the memory is taken when the run starts;
- *networks*: weights, their gradients, two moments of the optimiser, and targets;
- the largest of what an iteration needs beside those, one after another: *collecting* (the recorded trials, their noise, their
  copies), *relabelling* (rewards of a trial, start states and returns under every training task), *task inference* (what a batch of
  stretches is encoded and decoded through), *policy updates* (what a batch passes in the twin critics);
- *the program*: Python, torch and the simulator.

Not counted: the workspace of matrix products, what is freed late, evaluations, Meta-World's scenes. So a run needs more than this, and
one that is refused could not have run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dmrlad_bench.cards import AgentConfig, CardError
from dmrlad_bench.harness.memory import available_memory, device_memory
from dmrlad_bench.harness.replay_demand import LEARNERS, Sizes, additions, copies

PROGRAM = 150 * 2**20  # bytes of a process that has done nothing yet
WITH_LEARNER = 300 * 2**20  # that has loaded torch's kernels
FLOAT = 4
LEARNT = 4  # weight, gradient, two moments
TWINS = 2
NOISE = 32  # bytes of a step's coloured noise while it is drawn: two parts of a spectrum, and both as a complex number
VALIDATION_TARGETS = 4096  # of task inference
ORDINARY = {"horizon": 200, "episodes": 1}  # of families, to say which key asks for much
SECTIONS = ("inference", "actor_critic", "relabel", "exploration", "schedule", "pearl", "recurrent", "posterior", "reward_model")


def check_memory(agent: AgentConfig, sizes: Sizes, device: str) -> int:
    """Bytes that a run needs at least; raises `CardError` with the key that asks for most of them where there are not so many."""
    parts = estimate(agent, sizes)
    need = sum(parts.values())
    limit = device_memory(device) or available_memory()
    if limit is not None and need > limit[0]:
        largest = max(parts, key=lambda part: parts[part])
        raise CardError(
            f"{culprit(agent, sizes)} asks for too much memory: the run needs at least {in_words(need)} "
            f"({largest} {in_words(parts[largest])}), there are {in_words(limit[0])} ({limit[1]})"
        )
    return need


def check_together(needs: Sequence[int], jobs: int, device: str) -> None:
    """Raises `CardError` where several runs do not fit side by side: the `jobs` largest, or where `jobs` is 0 all in one process."""
    limit = device_memory(device) or available_memory()
    if jobs:
        together, instead = sum(sorted(needs, reverse=True)[:jobs]), "fewer --jobs"
    else:
        together, instead = WITH_LEARNER + sum(max(0, need - WITH_LEARNER) for need in needs), "no --pack"
    if limit is not None and together > limit[0]:
        raise CardError(
            f"{jobs or len(needs)} runs at a time need at least {in_words(together)} of memory, there are {in_words(limit[0])} "
            f"({limit[1]}); expected {instead}"
        )


def estimate(agent: AgentConfig, sizes: Sizes) -> dict[str, int]:
    """Bytes by what needs them."""
    passing = {"collecting": _collecting(agent, sizes)}
    if agent.algorithm in LEARNERS:
        passing |= {
            "relabelling": _relabelling(agent, sizes),
            "task inference": _inference(agent, sizes),
            "policy updates": _policy(agent, sizes),
        }
    largest = max(passing, key=lambda part: passing[part])
    parts = {"the program": WITH_LEARNER if agent.algorithm in LEARNERS else PROGRAM, largest: passing[largest]}
    if agent.algorithm in LEARNERS:
        belief = FLOAT * belief_entries(agent) * (sizes.steps + 1)
        parts["replay"] = agent.schedule.replay_trials * (trial_bytes(sizes) + belief)
        parts["networks"] = _networks(agent, sizes)
    return parts


def culprit(agent: AgentConfig, sizes: Sizes) -> str:
    """The key, and its value, that asks for most: the need falls most where this one alone takes its ordinary value."""
    candidates: list[tuple[str, Any, AgentConfig, Sizes]] = list(_sizes_that_are_large(agent, sizes))
    candidates += [(f"key '{section}.{key}'", value, changed, sizes) for section, key, value, changed in _each_at_its_default(agent)]
    if not candidates:
        return "the run"
    name, value, _, _ = min(candidates, key=lambda candidate: sum(estimate(candidate[2], candidate[3]).values()))
    return f"{name} = {list(value) if isinstance(value, tuple) else value}"


def in_words(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def trial_bytes(sizes: Sizes) -> int:
    """A recorded trial; the episode's number and, where tasks change, the task's are int64, flags a byte."""
    floats = 2 * sizes.observation_dim + sizes.action_dim + sizes.outcome_dim + 1
    return sizes.steps * (FLOAT * floats + 8 + 1 + (8 if sizes.changing else 0)) + 8


def belief_entries(agent: AgentConfig) -> int:
    """Entries of a stored belief: what policy and critics see of it. The posterior of `pearl` is not stored."""
    if agent.algorithm != "cemrl" or agent.inference.kind == "none":
        return 0
    return agent.inference.latent_dim * (2 if agent.actor_critic.belief_input == "mean_and_deviation" else 1)


def _state(agent: AgentConfig, sizes: Sizes) -> int:
    """Entries of what policy and critics see."""
    if agent.recurrent is not None:
        return sizes.observation_dim + agent.recurrent.width
    return sizes.observation_dim + (agent.pearl.latent_dim if agent.pearl is not None else belief_entries(agent))


def _collecting(agent: AgentConfig, sizes: Sizes) -> int:
    most, exploration = 0, agent.exploration
    noisy = exploration.initial == "coloured" or exploration.coloured_share > 0 or exploration.policy_colour > 0
    for addition in additions(agent, sizes):
        beside = min(addition.trials, sizes.widest or addition.trials)
        noise = NOISE * beside * sizes.action_dim * sizes.horizon if noisy and agent.algorithm in LEARNERS else 0
        most = max(most, addition.trials * trial_bytes(sizes) + max(noise, addition.copies * trial_bytes(sizes)))
    return most


def _relabelling(agent: AgentConfig, sizes: Sizes) -> int:
    relabel = agent.relabel
    if not copies(agent, sizes, 1, False) or relabel.kind == "random":
        return 0
    one = FLOAT * sizes.tasks * sizes.steps
    if relabel.kind == "hindsight":
        return one * relabel.normaliser_trials
    starts = FLOAT * sizes.tasks * relabel.utility_batch * (_state(agent, sizes) + sizes.observation_dim)
    return one + starts + 8 * sizes.tasks * relabel.normaliser_trials


def _inference(agent: AgentConfig, sizes: Sizes) -> int:
    inference, transition = agent.inference, 2 * sizes.observation_dim + sizes.action_dim + 1
    if agent.pearl is not None:
        rows = min(agent.pearl.meta_batch, sizes.tasks) * agent.pearl.context_batch
        return FLOAT * rows * (transition + 2 * sum(agent.pearl.encoder_hidden))
    if agent.reward_model is not None:
        width = 2 * sizes.observation_dim + sizes.action_dim
        return FLOAT * agent.reward_model.batch_size * (width + 2 * sum(agent.reward_model.hidden))
    if agent.algorithm != "cemrl" or inference.kind == "none":
        return 0
    reach = inference.window + inference.segment - 1 if inference.window else sizes.steps - 1
    stretches = max(1, inference.batch_size // inference.segment)
    learning = stretches * reach * (transition + 2 * sum(inference.encoder_hidden))
    learning += stretches * inference.segment * 2 * sum(inference.decoder_hidden)
    validating = max(1, VALIDATION_TARGETS // inference.segment) * reach * transition
    return FLOAT * max(learning, validating)


def _policy(agent: AgentConfig, sizes: Sizes) -> int:
    config, state = agent.actor_critic, _state(agent, sizes)
    hidden = list(config.hidden)
    rows = config.batch_size
    if agent.pearl is not None:
        rows *= min(agent.pearl.meta_batch, sizes.tasks)
    if agent.recurrent is not None:
        rows *= min(agent.recurrent.sequence or sizes.steps, sizes.steps)
    each = 2 * state + 2 * sum(hidden)
    if config.critic == "quantile":
        width = hidden[-2] if len(hidden) > 1 else state
        each += config.fraction_count * (4 * width + 3 * hidden[-1])  # four results of the embedding, three of the merged layer
    return FLOAT * TWINS * rows * each


def _networks(agent: AgentConfig, sizes: Sizes) -> int:
    config, inference, state = agent.actor_critic, agent.inference, _state(agent, sizes)
    transition = 2 * sizes.observation_dim + sizes.action_dim + 1
    policy = _weights((state, *config.hidden, 2 * sizes.action_dim))
    critic = _weights((state + sizes.action_dim, *config.hidden, 1)) + (
        config.cosines * config.hidden[0] if config.critic == "quantile" else 0
    )
    total = (LEARNT + 1) * (policy + TWINS * critic)
    if agent.pearl is not None:
        total += LEARNT * _weights((transition, *agent.pearl.encoder_hidden, 2 * agent.pearl.latent_dim))
    elif agent.recurrent is not None:
        memory = agent.recurrent.embedding * transition + 3 * agent.recurrent.width * (agent.recurrent.width + agent.recurrent.embedding)
        total += (LEARNT + 1) * 2 * memory
    elif agent.algorithm == "cemrl" and inference.kind != "none":
        entries = inference.classes * (1 + 2 * inference.latent_dim)
        decoded = sizes.observation_dim + sizes.action_dim + inference.latent_dim
        total += LEARNT * (_weights((transition, *inference.encoder_hidden, entries)) + _weights((decoded, *inference.decoder_hidden, 1)))
    if agent.reward_model is not None:
        total += LEARNT * _weights((2 * sizes.observation_dim + sizes.action_dim, *agent.reward_model.hidden, 1))
    return FLOAT * total


def _weights(widths: Sequence[int]) -> int:
    return sum(before * after for before, after in pairwise(widths))


def _sizes_that_are_large(agent: AgentConfig, sizes: Sizes) -> Iterator[tuple[str, int, AgentConfig, Sizes]]:
    """The family's own numbers that are beyond the ordinary: name, value, and what the estimate would be made of without."""
    for name, ordinary in ORDINARY.items():
        value = getattr(sizes, name)
        if value > ordinary:
            of_agent = name == "episodes" and agent.schedule.episodes_per_trial is not None
            where = "key 'schedule.episodes_per_trial'" if of_agent else f"the family's {name}"
            yield where, value, agent, Sizes(**{**vars(sizes), name: ordinary})


def _each_at_its_default(agent: AgentConfig) -> Iterator[tuple[str, str, Any, AgentConfig]]:
    """Every whole number, or list of them, that is not what it is by default: section, key, value, and the agent with the default."""
    for section in SECTIONS:
        given = getattr(agent, section)
        if given is None:
            continue
        for key, field in type(given).model_fields.items():
            value = getattr(given, key)
            if value != field.default and isinstance(value, int | tuple) and not isinstance(value, bool):
                yield section, key, value, agent.model_copy(update={section: given.model_copy(update={key: field.default})})
