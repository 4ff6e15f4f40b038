"""`run` and `evaluate`: train agents, and score what was trained."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmrlad_bench.cards import CardError, load_agent, load_family, resolve_agent
from dmrlad_bench.cli.options import (
    DEFAULT_ENV,
    SIMULATION_THREADS,
    THREADS,
    TORCH_THREADS,
    Agents,
    Budget,
    Envs,
    Overrides,
    import_from_here,
    whole_number,
)
from dmrlad_bench.cli.output import PROGRAM, Shown, fail, table_console
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.threads import sleep_while_waiting
from dmrlad_bench.protocol import SPLITS

if TYPE_CHECKING:
    from dmrlad_bench.reports.results import Result


def run(
    agent: Agents,
    env: Envs = [DEFAULT_ENV],  # noqa: B006 - typer reads the default, nobody changes it
    seed: Annotated[list[int], typer.Option("--seed", parser=whole_number, metavar="N", help="Seed of the run. May be repeated.")] = [0],  # noqa: B006
    budget: Budget = "quick",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the run folders, which are DIR/<family>/<agent>--<budget>--seed<N>.")
    ] = Path("runs"),
    overrides: Overrides = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Continue existing run folders.")] = False,
    jobs: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Runs at a time, each in a process of its own.")] = 1,
    pack: Annotated[bool, typer.Option("--pack", help="All runs at once in one process, sharing a GPU. Without one, take --jobs.")] = False,
    threads: Annotated[int | None, typer.Option(parser=whole_number, metavar="N", help=TORCH_THREADS)] = None,
    simulation_threads: Annotated[int | None, typer.Option(parser=whole_number, metavar="N", help=SIMULATION_THREADS)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress, only what came out.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Print the seconds spent in each phase, and the rates.")] = False,
) -> None:
    """Train agents and score them on held-out tasks; several agents, families and seeds make a matrix of runs.

    All of them are checked before the first one starts; one that fails does not keep the others from running. Finished runs of a
    matrix are taken as they are.
    """
    if jobs < 1:
        raise CardError(f"jobs: expected at least 1, got {jobs}")
    if pack and jobs > 1:
        raise CardError(f"pack: all runs share one process, so jobs must be 1, got {jobs}")
    sleep_while_waiting()
    _check_names(agent, env, budget)
    from dmrlad_bench.harness.api import Draft, draft, needed_memory
    from dmrlad_bench.harness.expected import announce
    from dmrlad_bench.harness.memory_estimate import check_together
    from dmrlad_bench.harness.run import Run, check_folder

    matrix = list(itertools.product(agent, env, seed))
    jobs = min(jobs, len(matrix))
    shared: dict[str, Any] = {"budget": budget, "device": device, "out": out, "overrides": overrides, "jobs": jobs}
    shared |= {"threads": threads, "simulation_threads": simulation_threads}
    drafts: dict[Path, Draft] = {}
    for one_agent, one_env, one_seed in matrix:
        drafted = draft(one_agent, one_env, seed=one_seed, resume=resume, **shared)
        folder = drafted.folder
        if folder in drafts:
            raise CardError(f"{folder}: asked for twice; each --agent, --env and --seed may be given once")
        taken = len(matrix) > 1 and Run(folder).finished
        if taken and not resume:
            drafted = draft(one_agent, one_env, seed=one_seed, resume=True, **shared)
        check_folder(drafted.drafted, folder, resume or taken)
        drafts[folder] = drafted
    if pack or jobs > 1:
        first = next(iter(drafts.values())).drafted
        check_together([needed_memory(one.drafted) for one in drafts.values()], 0 if pack else jobs, first.device)
    finished_before = [folder for folder in drafts if Run(folder).finished]
    if not quiet:
        for folder in finished_before if len(matrix) > 1 else ():
            print(f"{folder}: finished before, taken as it is", file=sys.stderr)
        announce({folder: drafted.drafted for folder, drafted in drafts.items()}, jobs)
    plans = {folder: drafted.config() for folder, drafted in drafts.items()}  # seconds: torch looks for a GPU

    from dmrlad_bench.harness.log import reconstruction_updates
    from dmrlad_bench.harness.matrix import Options, train_all
    from dmrlad_bench.harness.signals import interrupt_on_signals
    from dmrlad_bench.reports.tables import ended_line, phases_table, result_table, runs_table

    interrupt_on_signals()
    shown = Shown()
    results: dict[Path, Result] = {}
    failures: list[CardError | RunFailed] = []
    try:
        for folder, outcome in train_all(plans, jobs, Options(resume, _typed_command(), quiet, pack)):
            if isinstance(outcome, CardError | RunFailed):
                failures.append(outcome)
                continue
            results[folder] = outcome
            if len(plans) > 1 and not quiet and folder not in finished_before:
                print(f"{folder}: {ended_line(outcome)}", file=sys.stderr)
    except KeyboardInterrupt as error:  # here, for typer swallows what is left of an interrupt outside of its commands
        _report(failures)
        for line in (str(error) or "interrupted").splitlines():
            fail(line, 130)
        raise typer.Exit(130) from None
    finished = {folder: results[folder] for folder in plans if folder in results}
    for folder, result in finished.items():
        if len(plans) == 1:
            shown.print(result_table(result))
        if profile:
            shown.print(phases_table(result, reconstruction_updates(folder)))
        if profile or len(plans) == 1:
            shown.print(f"run folder: {folder}", soft_wrap=True)
    if len(plans) > 1 and finished:
        shown.print(runs_table(list(finished.values())))
        shown.print(f"run folders: {out}", soft_wrap=True)
    code = _report(failures)
    if not code:
        shown.finish()
    raise typer.Exit(code)


def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    split: Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(SPLITS)}.")] = "test",
    episodes: Annotated[int, typer.Option(parser=whole_number, metavar="K", help="Consecutive episodes in each task.")] = 3,
    trials: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="Trials in each task. [default: 5 of test and ood, else 1]")
    ] = None,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Draw the actions instead of taking the policy's mean.")] = False,
    threads: Annotated[int | None, typer.Option(parser=whole_number, metavar="N", help=THREADS.format("run's own"))] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Import the agent's class and the body that the run names.")] = False,
) -> None:
    """Re-run the protocol on a run's newest checkpoint."""
    from dmrlad_bench.harness.run import Run
    from dmrlad_bench.harness.trust import check_trust, named_code

    sleep_while_waiting()
    config = Run(run_folder).config
    check_trust(run_folder, config, trust_code)
    if named_code(config):
        import_from_here()
    from dmrlad_bench.harness.api import evaluate as score
    from dmrlad_bench.reports.tables import scores_table

    scores = score(
        run_folder, split=split, episodes=episodes, trials=trials, deterministic=not stochastic, threads=threads, trust_code=trust_code
    )
    table_console().print(scores_table(f"{config.agent.name} on {config.env}, budget {config.budget}, seed {config.seed}", [scores]))


def _report(failures: Sequence[CardError | RunFailed]) -> int:
    """One line for each run that failed; returns the exit code of them all."""
    return min((fail(str(error), 1 if isinstance(error, RunFailed) else 2) for error in failures), default=0)


def _check_names(agents_given: list[str], envs_given: list[str], budget: str) -> None:
    """Refuse bad names before the imports that training needs."""
    for entry in envs_given:
        card = load_family(entry)
        if ":" in card.body:
            import_from_here()
        for agent in agents_given:
            if resolve_agent(load_agent(agent), card.name, budget).import_path is not None:
                import_from_here()


def _typed_command() -> list[str]:
    return [PROGRAM, *sys.argv[1:]]
