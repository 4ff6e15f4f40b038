"""From finished runs to leaderboard entries: what is refused, and what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmrlad_bench.cards import AgentConfig, CardError, FamilyCard, agent_names, family_names, load_family
from dmrlad_bench.cards.reading import read_toml, validate
from dmrlad_bench.protocol import EPISODES, SCORED_SPLITS, trials_of
from dmrlad_bench.reports.leaderboard import Entry, make_entry
from dmrlad_bench.reports.plausibility import doubled, implausible
from dmrlad_bench.reports.published_agent import AGENT_NAME, About, PublishedAgent, source_digest
from dmrlad_bench.reports.reading import RecordedRun, preset_config, published_family, reference_of
from dmrlad_bench.reports.results import Result

CONFIG_FILE = "config.toml"
NOT_RECORDED = ("--out",)  # options with a value that change no result and tell of somebody's machine


def make_entries(runs: Sequence[RecordedRun], name: str | None = None, about: About | None = None) -> list[Entry]:
    """One entry for each agent, family and budget among `runs`.

    Args:
        runs: finished runs, each consistent in itself.
        name: what to call the agent; its own name unless given, and then its configuration must be the published preset's.
        about: authors, links and date; today's date and nothing else unless given.

    Raises:
        CardError: runs of families that are not published or have changed, of another protocol, of mixed configurations, given twice, or
            under a name that belongs to another configuration; anything that a check of the entry would find.
    """
    if name is not None:
        _check_name(name, runs)
        if about is None or not about.authors:
            raise CardError(f"name {name!r}: an agent that is no published preset needs its authors; give --author")
    members: dict[tuple[str, str, str], list[RecordedRun]] = {}
    for run in runs:
        check_publishable(run)
        members.setdefault((run.result.family.id, run.result.agent.name, run.result.budget), []).append(run)
    return [_make_entry(group, name, about) for group in members.values()]


def _make_entry(runs: list[RecordedRun], name: str | None, about: About | None) -> Entry:
    first = runs[0]
    seeds: dict[int, RecordedRun] = {}
    for run in runs:
        if run.result.agent.digest != first.result.agent.digest:
            digests = " but ".join(f"{one.result.agent.digest!r} in {one.source}" for one in (first, run))
            raise CardError(f"agent digest differs: {digests}; an entry holds one configuration")
        other = seeds.setdefault(run.result.seed, run)
        if other is not run:
            raise CardError(f"seed {run.result.seed} is there twice: {other.source} and {run.source}")
    if name is None:
        check_is_preset(first)
    entry = make_entry([recorded(run.result) for run in runs], _agent_of(first, name), reference_of(first.result), about)
    card = load_family(entry.family.id)
    for run in entry.runs:
        if fault := implausible(entry, run, card):
            raise CardError(f"{seeds[run.seed].source}: {fault}")
    if fault := doubled(entry):
        raise CardError(f"agent {entry.agent.name!r}: {fault}")
    return entry


def _agent_of(run: RecordedRun, name: str | None) -> PublishedAgent:
    """The agent of a run with its whole configuration, which lies beside the result where it is none of a preset."""
    result = run.result
    config = preset_config(result) if name is None else _config_beside(run)
    assert config is not None
    path = config.import_path
    return PublishedAgent(
        name=name or result.agent.name,
        digest=result.agent.digest,
        preset=name is None,
        track=result.agent.track,
        config=config.model_dump(mode="json"),
        import_path=path,
        source=None if path is None else source_digest(path),
    )


def _config_beside(run: RecordedRun) -> AgentConfig:
    """The resolved agent that the run folder holds, or a preset's that the result is of; raises `CardError` where there is neither."""
    path = Path(run.source) / CONFIG_FILE
    if path.is_file():
        found = validate(AgentConfig, read_toml(path).get("agent") or {}, f"{path}: key 'agent'")
    else:
        found = preset_config(run.result)
    if found is None or found.digest != run.result.agent.digest:
        raise CardError(
            f"{run.source}: the resolved agent is not known: expected a run folder whose {CONFIG_FILE} holds the configuration of digest "
            f"{run.result.agent.digest!r}"
        )
    return found


def check_publishable(run: RecordedRun) -> None:
    """Raises `CardError` where the run is not one of a published family by the whole protocol, or its folder says otherwise."""
    card = published_family(run.result)
    if card is None:
        raise CardError(f"{run.source}: family {run.result.family.id!r} is not published; accepted: {', '.join(family_names())}")
    if card.digest != run.result.family.digest:
        raise CardError(
            f"{run.source}: family {card.id} has digest {run.result.family.digest!r} there, on the published card {card.digest!r}"
        )
    if fault := protocol_fault(run.result, card):
        raise CardError(f"{run.source}: not the whole protocol: {fault}")
    _check_configuration(run)


def protocol_fault(result: Result, card: FamilyCard) -> str | None:
    """What a result lacks of the protocol on its family, or None."""
    sizes = {split: len(getattr(card.tasks, split)) for split in SCORED_SPLITS}
    expected = [(split, True) for split, size in sizes.items() if size] + [("test", False)]
    found = {(matrix.split, matrix.deterministic): matrix for matrix in result.final}
    for split, deterministic in expected:
        kind = f"{split!r} with {'deterministic' if deterministic else 'stochastic'} actions"
        matrix = found.pop((split, deterministic), None)
        if matrix is None:
            return f"no scores of {kind}"
        if matrix.task_index != tuple(range(sizes[split])):
            return f"{len(matrix.task_index)} tasks of {kind}, the family has {sizes[split]}, each once and in order"
        if len(matrix.returns[0]) != trials_of(split):
            return f"{len(matrix.returns[0])} trials a task of {kind}, the protocol has {trials_of(split)}"
        if len(matrix.returns[0][0]) != EPISODES:
            return f"trials of {len(matrix.returns[0][0])} episodes, the protocol has {EPISODES}"
    return f"scores of {next(iter(found))[0]!r} that the protocol has not" if found else None


def _check_configuration(run: RecordedRun) -> None:
    """The configuration beside a result must be the one that the result tells of."""
    path = Path(run.source) / CONFIG_FILE
    if not path.is_file():
        return
    content = read_toml(path)
    result = run.result
    told: dict[str, object] = {
        "env": result.family.id,
        "budget": result.budget,
        "seed": result.seed,
        "device": result.device,
        "threads": result.threads,
    }
    told["simulation_threads"] = result.simulation_threads
    for key, value in told.items():
        if content.get(key) != value:
            raise CardError(
                f"{run.source}: key {key!r} is {value!r} in the result, {content.get(key)!r} in {CONFIG_FILE} (edited by hand?)"
            )


def check_is_preset(run: RecordedRun) -> None:
    """Raises `CardError` where the run's configuration is not the published preset's of its name."""
    result = run.result
    config = preset_config(result)
    if config is None:
        known = ", ".join(agent_names())
        raise CardError(f"{run.source}: agent {result.agent.name!r} is no published preset; give --name, or use one of: {known}")
    if config.digest != result.agent.digest:
        raise CardError(
            f"{run.source}: its configuration is not that of the preset {result.agent.name!r} with budget {result.budget} (digest "
            f"{result.agent.digest!r}, the preset's is {config.digest!r}): --set, another card or another version; give --name"
        )


def _check_name(name: str, runs: Sequence[RecordedRun]) -> None:
    if not AGENT_NAME.fullmatch(name):
        raise CardError(f"name {name!r}: expected lower-case words, digits and single hyphens, as my-agent")
    if name in agent_names():
        raise CardError(f"name {name!r}: belongs to a published preset; choose another, or leave --name out")
    agents = sorted({run.result.agent.name for run in runs})
    if len(agents) > 1:
        raise CardError(f"name {name!r}: one name for several agents: {', '.join(agents)}; submit them one by one")


def recorded(result: Result) -> Result:
    """The result as it is published: its command without the folder it wrote to."""
    kept: list[str] = []
    parts = iter(result.command)
    for part in parts:
        if part in NOT_RECORDED:
            next(parts, None)
        elif not part.startswith(tuple(f"{option}=" for option in NOT_RECORDED)):
            kept.append(part)
    return result.model_copy(update={"command": tuple(kept)})
