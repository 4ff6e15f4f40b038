"""`tune`: search an agent's values on validation tasks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from dmrlad_bench.cards import CardError, load_agent, load_family, resolve_agent
from dmrlad_bench.cli.options import DEFAULT_ENV, Budget, import_from_here, whole_number
from dmrlad_bench.cli.output import PROGRAM, fail, write_text
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.threads import sleep_while_waiting

BEST_FILE = "best.toml"


def tune(
    agent: Annotated[str, typer.Option(metavar="NAME", help="Preset's name, TOML file, or package.module:Class.")],
    trials: Annotated[
        int, typer.Option(parser=whole_number, metavar="N", help="Trials that the study is to have, those of earlier calls counted.")
    ],
    env: Annotated[str, typer.Option("--env", metavar="ID", help="Family.")] = DEFAULT_ENV,
    budget: Budget = "quick",
    seeds: Annotated[int, typer.Option(parser=whole_number, metavar="K", help="Runs of each trial, of the seeds 0 to K - 1.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the study. [default: tuning/<family>/<agent>--<budget>]", show_default=False),
    ] = None,
    jobs: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Trials at a time, each in a process of its own.")] = 1,
    threads: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Threads of torch and of the simulation of a run.")] = 1,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the study: .png, .pdf or .svg.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress, only what came out.")] = False,
) -> None:
    """Tune an agent on the validation tasks of a family, never on test tasks; the same command goes on where it was stopped."""
    if importlib.util.find_spec("optuna") is None:
        raise CardError("tune needs Optuna, which is not installed: pip install 'dmrlad-bench[tune]'")
    if trials < 1:
        raise CardError(f"trials: expected at least 1, got {trials}")
    sleep_while_waiting()
    family = load_family(env)
    if ":" in family.body or resolve_agent(load_agent(agent), family.name, budget).import_path is not None:
        import_from_here()
    if plot_file is not None:
        from dmrlad_bench.reports.plots import check_plot_path

        check_plot_path(plot_file)
    from dmrlad_bench.cards.writing import write_atomic
    from dmrlad_bench.harness.signals import interrupt_on_signals
    from dmrlad_bench.harness.tuning import plan_tuning
    from dmrlad_bench.harness.tuning_jobs import tune as run_study
    from dmrlad_bench.reports.formats import plain
    from dmrlad_bench.reports.tuning_tables import best_toml, trials_table

    command = (PROGRAM, *sys.argv[1:])
    plan = plan_tuning(agent, env, budget=budget, seeds=seeds, out=out, device=device, threads=threads, command=command)
    interrupt_on_signals()
    try:
        ended = run_study(plan, trials, jobs, quiet)
    except KeyboardInterrupt as error:  # here, for typer swallows what is left of an interrupt outside of its commands
        raise typer.Exit(fail(str(error) or "interrupted", 130)) from None
    write_text(plain([trials_table(plan.name, ended, seeds)]))
    best = best_toml(plan.name, ended, family.name, budget, seeds)
    if best is None:
        raise RunFailed(f"{plan.folder}: no trial was completed, so there are no best values")
    write_atomic(plan.folder / BEST_FILE, best.encode())
    write_text(f"\n{best}\nwritten: {plan.folder / BEST_FILE}\n")
    if plot_file is not None:
        from dmrlad_bench.reports.plots import save_figure
        from dmrlad_bench.reports.tuning_figure import study_figure

        save_figure(study_figure(plan.name, ended, {one.key for one in plan.space if one.dimension.log}), plot_file)
        print(f"figure: {plot_file}")
