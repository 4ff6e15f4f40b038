"""The command line. Thin: each command calls one thing, and lives in the file of its kind; this one joins and runs them."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.foreign import described
from dmrlad_bench.cli import cards, machine, reports, running, tuning
from dmrlad_bench.cli.output import PROGRAM, fail, give_up_output, open_outputs
from dmrlad_bench.harness.errors import RunFailed

COMMANDS = (
    *(running.run, running.evaluate, tuning.tune, cards.envs, cards.agents, machine.doctor),
    *(reports.compare, reports.plot, reports.submit, reports.leaderboard, reports.reference),
)

COMPLETION = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"  # the variable by which a shell asks for completions
COMPLETION_OPTIONS = ("--install-completion", "--show-completion")

app = typer.Typer(name=PROGRAM, pretty_exceptions_enable=False, rich_markup_mode=None)
for _command in COMMANDS:
    app.command()(_command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"{PROGRAM} {dmrlad_bench.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")] = False,
) -> None:
    """Meta-reinforcement learning in sparse-reward task families: train, score, compare."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    try:
        open_outputs()
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except CardError as error:
        code = fail(str(error), 2)
    except RunFailed as error:
        code = fail(str(error), 1)
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        code = fail(f"{' '.join(message.split())} (see {PROGRAM} --help)", 2) if message else 2
    except (KeyboardInterrupt, typer.Abort):
        code = fail("interrupted", 130)
    except SystemExit as error:
        if COMPLETION in os.environ or set(COMPLETION_OPTIONS) & set(sys.argv[1:] if arguments is None else arguments):
            code = error.code if isinstance(error.code, int) else 0  # how typer ends after it has completed
        else:  # from code of anyone's, and it would end the program as if all were done
            code = fail(described(error), 2)
    except BrokenPipeError:
        give_up_output()  # whoever read our output left; nothing to say to them
        code = 0
    except OSError as error:
        give_up_output()
        code = fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    sys.exit(code or 0)
