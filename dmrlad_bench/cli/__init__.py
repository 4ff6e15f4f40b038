"""The command line. Thin: each command calls one thing, and lives in the file of its kind; this one joins and runs them."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.foreign import described
from dmrlad_bench.cli import cards, machine, reports, running, tuning
from dmrlad_bench.cli.output import PROGRAM, fail, give_up_output, open_outputs
from dmrlad_bench.harness.errors import RunFailed

COMMANDS = (
    *(running.run, running.evaluate, tuning.tune, cards.envs, cards.agents, machine.doctor),
    *(reports.compare, reports.plot, reports.submit, reports.leaderboard, reports.reference),
)

app = typer.Typer(name=PROGRAM, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
for _command in COMMANDS:
    app.command()(_command)


@app.callback()
def _program() -> None:
    """Meta-reinforcement learning in sparse-reward task families: train, score, compare."""


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
    except SystemExit as error:  # typer raises none here: it is from code of anyone's, and would end the program as if all were done
        code = fail(described(error), 2)
    except BrokenPipeError:
        give_up_output()  # whoever read our output left; nothing to say to them
        code = 0
    except OSError as error:
        give_up_output()
        code = fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    sys.exit(code or 0)
