"""The command line: `dmrlad-bench run`, `evaluate`, `envs`, `agents`, `doctor`. Thin: each command calls one thing."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from dmrlad_bench.cards import BUDGETS, CardError, agent_names, family_names, load_agent, load_family, resolve_agent
from dmrlad_bench.harness.errors import RunFailed

PROGRAM = "dmrlad-bench"
DEFAULT_ENV = "DMRLAD/CheetahVelSparse-v0"
PIPED_WIDTH = 120

app = typer.Typer(name=PROGRAM, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}") from None


Envs = Annotated[list[str], typer.Option("--env", metavar="ID", help="Family: its id, bare name or TOML file. May be repeated.")]
Budget = Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(BUDGETS)}.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the agent's configuration. May be repeated.")
]
THREADS = "Threads of torch and of the simulation. [default: the {}]"


@app.callback()
def _program() -> None:
    """Meta-reinforcement learning in sparse-reward task families: train, score, compare."""


@app.command()
def run(
    agent: Annotated[list[str], typer.Option("--agent", metavar="NAME", help="Preset's name or TOML file. May be repeated.")],
    env: Envs = [DEFAULT_ENV],  # noqa: B006 - typer reads the default, nobody changes it
    seed: Annotated[list[int], typer.Option("--seed", parser=_whole_number, metavar="N", help="Seed of the run. May be repeated.")] = [0],  # noqa: B006
    budget: Budget = "quick",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the run folders, which are DIR/<family>/<agent>--<budget>--seed<N>.")
    ] = Path("runs"),
    overrides: Overrides = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Continue existing run folders.")] = False,
    threads: Annotated[int | None, typer.Option(parser=_whole_number, metavar="N", help=THREADS.format("cores allowed"))] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Print the seconds spent in each phase.")] = False,
) -> None:
    """Train agents and score them on held-out tasks; several agents, families and seeds run one after another.

    All of them are checked before the first one starts; one that fails does not keep the others from running.
    """
    _check_names(agent, env, budget)
    from dmrlad_bench.harness.api import plan
    from dmrlad_bench.harness.run import check_folder

    plans: dict[Path, Any] = {}
    for one_agent, one_env, one_seed in itertools.product(agent, env, seed):
        config, folder = plan(
            one_agent, one_env, seed=one_seed, budget=budget, device=device, out=out, overrides=overrides, threads=threads, resume=resume
        )
        if folder in plans:
            raise CardError(f"{folder}: asked for twice; each --agent, --env and --seed may be given once")
        check_folder(config, folder, resume)
        plans[folder] = config

    from dmrlad_bench.harness.train import train_run  # seconds of imports, paid once everything is known to be right
    from dmrlad_bench.reports.tables import phases_table, result_table, runs_table

    _interrupt_on_signals()
    console, results, failures = _console(), [], []
    for folder, config in plans.items():
        try:
            result = train_run(config, folder, resume=resume, command=_typed_command(), quiet=quiet).result
        except (CardError, RunFailed) as error:
            failures.append(error)
            continue
        except KeyboardInterrupt as error:  # here, for typer swallows what is left of an interrupt outside of its commands
            _report(failures)
            raise typer.Exit(_fail(str(error) or "interrupted", 130)) from None
        results.append(result)
        console.print(result_table(result))
        if profile:
            console.print(phases_table(result))
        console.print(f"run folder: {folder}", soft_wrap=True)
    if len(plans) > 1 and results:
        console.print(runs_table(results))
    raise typer.Exit(_report(failures))


@app.command()
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="test, train or ood.")] = "test",
    episodes: Annotated[int, typer.Option(parser=_whole_number, metavar="K", help="Consecutive episodes in each task.")] = 3,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Draw the actions instead of taking the policy's mean.")] = False,
    threads: Annotated[int | None, typer.Option(parser=_whole_number, metavar="N", help=THREADS.format("run's own"))] = None,
) -> None:
    """Re-run the protocol on a run's newest checkpoint."""
    from dmrlad_bench.harness.run import Run

    config = Run(run_folder).config
    from dmrlad_bench.harness.api import evaluate as score
    from dmrlad_bench.reports.tables import scores_table

    scores = score(run_folder, split=split, episodes=episodes, deterministic=not stochastic, threads=threads)
    _console().print(scores_table(f"{config.agent.name} on {config.env}, budget {config.budget}, seed {config.seed}", [scores]))


@app.command()
def envs(name: Annotated[str | None, typer.Argument(metavar="[ID]", help="Family to show.")] = None) -> None:
    """List the task families, or show one."""
    console = _console()
    if name is not None:
        _show_family(console, name)
        return
    table = Table("id", "body", "goal", "reward", "success")
    for column in ("horizon", "train", "test", "ood"):
        table.add_column(column, justify="right")
    for entry in family_names():
        card = load_family(entry)
        sizes = (str(len(tasks)) for tasks in (card.tasks.train, card.tasks.test, card.tasks.ood))
        table.add_row(card.id, card.body, card.goal.kind, card.reward.kind, card.success, str(card.horizon), *sizes)
    console.print(table)


@app.command()
def agents(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Agent to show, resolved for a family and a budget.")] = None,
    env: Annotated[str, typer.Option("--env", metavar="ID", help="Family.")] = DEFAULT_ENV,
    budget: Budget = "quick",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """List the agent presets, or show one's resolved configuration."""
    console = _console()
    if name is None:
        table = Table("name", "description")
        for entry in agent_names():
            table.add_row(entry, load_agent(entry).description.strip())
        console.print(table)
        return
    import tomli_w

    card = load_family(env)
    config = resolve_agent(load_agent(name), card.name, budget, tuple(overrides))
    console.print(f"# {config.name} on {card.id}, budget {budget}, digest {config.digest}", soft_wrap=True)
    console.print(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), soft_wrap=True, markup=False)


@app.command()
def doctor() -> None:
    """Versions, device, renderer and threads: what to paste into a bug report."""
    from dmrlad_bench.harness.machine import diagnosis

    table = Table("what", "found")
    for what, found in diagnosis().items():
        table.add_row(what, found)
    _console().print(table)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except CardError as error:
        code = _fail(str(error), 2)
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        code = _fail(f"{' '.join(message.split())} (see {PROGRAM} --help)", 2) if message else 2
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output left; nothing to say to them
        code = 0
    except OSError as error:
        code = _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"{PROGRAM}: {message}" if code == 130 else f"{PROGRAM}: error: {message}", file=sys.stderr)
    return code


def _report(failures: Sequence[CardError | RunFailed]) -> int:
    """One line for each run that failed; returns the exit code of them all."""
    return min((_fail(str(error), 1 if isinstance(error, RunFailed) else 2) for error in failures), default=0)


def _check_names(agents_given: list[str], envs_given: list[str], budget: str) -> None:
    """Refuse bad names before the imports that training needs."""
    for entry in envs_given:
        card = load_family(entry)
        for agent in agents_given:
            resolve_agent(load_agent(agent), card.name, budget)


def _typed_command() -> list[str]:
    return [PROGRAM, *sys.argv[1:]]


def _interrupt_on_signals() -> None:
    """Ctrl-C and a termination signal stop the run alike, also where a shell started us with Ctrl-C ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _console() -> Console:
    """Standard output: a plain table of fixed width where it is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def _show_family(console: Console, name: str) -> None:
    card = load_family(name)
    console.print(card.id)
    console.print(" ".join(card.description.split()), markup=False)
    table = Table("key", "value", show_header=False)
    content = card.model_dump(mode="json", exclude={"description", "tasks", "name", "version"}, exclude_none=True)
    for key, value in content.items():
        for part, entry in value.items() if isinstance(value, dict) else (("", value),):
            table.add_row(f"{key}.{part}" if part else key, " ".join(str(entry).split()))
    for split in ("train", "test", "ood"):
        table.add_row(f"tasks.{split}", str(len(getattr(card.tasks, split))))
    table.add_row("digest", card.digest)
    console.print(table)
