"""`compare`, `plot`, `submit`, `leaderboard` and `reference`: from finished runs to comparisons and to the published record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmrlad_bench.cards import CardError, load_family, register_folder
from dmrlad_bench.cli.options import complete_families, import_from_here, whole_number
from dmrlad_bench.cli.output import fail, table_console, write_text

if TYPE_CHECKING:
    from dmrlad_bench.reports.formats import ReportTable
    from dmrlad_bench.reports.leaderboard import Entry

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Run folders, result.json files, leaderboard entries, or folders of them.", show_default=False),
]
Format = Annotated[str, typer.Option("--format", metavar="NAME", help="table, markdown, csv or latex.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="test, train or ood.")]
Stochastic = Annotated[bool, typer.Option("--stochastic", help="Scores of stochastic actions instead of deterministic ones.")]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Compare other budgets, configurations, families or protocols all the same, and say so.")
]

Order = Annotated[
    str | None,
    typer.Option(metavar="AGENTS", help="given, score, or names and commas. [default: legends by score]", show_default=False),
]
Rename = Annotated[list[str], typer.Option("--rename", metavar="OLD=NEW", help="What to call an agent. May be repeated.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Of the figure, inches. [default: what its panels need]", show_default=False)]
Dpi = Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Dots per inch of a .png.")]


def compare(
    runs: Runs,
    form: Format = "table",
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw a figure too: .png, .pdf or .svg.")] = None,
    split: Split = "test",
    stochastic: Stochastic = False,
    allow_mixed: AllowMixed = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="AGENT", help="Agent that the others are held against. [default: the first]", show_default=False)
    ] = None,
    order: Order = None,
    rename: Rename = [],  # noqa: B006
    size: Size = None,
    dpi: Dpi = 130,
) -> None:
    """Compare agents from finished runs: tables with intervals for each family, and over all of them."""
    from dmrlad_bench.reports.comparison import compare as compare_runs
    from dmrlad_bench.reports.comparison_tables import comparison_tables
    from dmrlad_bench.reports.formats import check_format

    check_format(form)
    inches = None
    if plot_file is not None:
        from dmrlad_bench.reports.plots import check_plot_path, check_size, size_of

        check_plot_path(plot_file)
        inches = None if size is None else size_of(size)
        check_size(inches, dpi)
    elif size is not None:
        raise CardError(f"size {size!r}: there is no figure to be of that size without --plot FILE")
    options: dict[str, Any] = {"allow_mixed": allow_mixed, "baseline": baseline, "order": order, "rename": rename}
    comparison = compare_runs(runs, split=split, deterministic=not stochastic, **options)
    if plot_file is not None:
        comparison.plot(plot_file, size=inches, dpi=dpi)
    if form == "table":
        _show(comparison_tables(comparison))
    else:
        write_text(comparison.table(form))


def plot(
    runs: Runs,
    kind: Annotated[str, typer.Option(metavar="NAME", help="summary, learning, adaptation or profiles.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write: .png, .pdf or .svg.")],
    split: Split = "test",
    stochastic: Stochastic = False,
    allow_mixed: AllowMixed = False,
    order: Order = None,
    rename: Rename = [],  # noqa: B006
    size: Size = None,
    dpi: Dpi = 130,
) -> None:
    """Draw a figure from finished runs."""
    from dmrlad_bench.reports.comparison import compare as compare_runs
    from dmrlad_bench.reports.plots import check_kind, check_plot_path, check_size, size_of

    check_kind(kind)
    check_plot_path(out)
    inches = None if size is None else size_of(size)
    check_size(inches, dpi)
    options: dict[str, Any] = {"allow_mixed": allow_mixed, "order": order, "rename": rename}
    compare_runs(runs, split=split, deterministic=not stochastic, **options).plot(out, kind, size=inches, dpi=dpi)
    print(f"figure: {out}")


def submit(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leaderboards folder. [default: the checkout's]", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call an agent that is no published preset.", show_default=False)
    ] = None,
    author: Annotated[
        list[str], typer.Option("--author", metavar="NAME", help="Who made the agent. May be repeated; needed with --name.")
    ] = [],  # noqa: B006 - typer reads the default, nobody changes it
    paper: Annotated[str | None, typer.Option(metavar="URL", help="Link to the paper.", show_default=False)] = None,
    code: Annotated[str | None, typer.Option(metavar="URL", help="Link to the agent's code.", show_default=False)] = None,
    reproduced: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Which seed was run again, by whom and when: a maintainer's.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace entries that are there and differ.")] = False,
) -> None:
    """Make a leaderboard entry of all seeds of an agent on a family with a budget; several of them make several entries."""
    out = _published_in() if out is None else out
    from dmrlad_bench.reports.published_agent import told
    from dmrlad_bench.reports.publishing import make_entries
    from dmrlad_bench.reports.reading import read_runs
    from dmrlad_bench.reports.writing import write_entries

    about = told(authors=author, paper=paper, code=code, reproduced=reproduced)
    for line in write_entries(make_entries(read_runs(runs), name, about), out, replace):
        print(line)


def leaderboard(
    families: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAMILY]...", help="Families to print, all unless given.", autocompletion=complete_families),
    ] = None,
    form: Format = "table",
    check: Annotated[
        bool, typer.Option("--check", help="Recompute every number from the runs, and say what is wrong: exit code 2.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write README.md into the folder.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Make the aggregates again, as after new reference scores; runs stay as they are.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leaderboards folder. [default: the published one]", show_default=False)
    ] = None,
    reproduce: Annotated[
        Path | None,
        typer.Option(metavar="ENTRY", help="Run a seed of this entry's file again, and say how far it lies off.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", parser=whole_number, metavar="N", help="With --reproduce: which seed.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --reproduce: where the run goes. [default: a temporary folder]", show_default=False),
    ] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --reproduce: import the class that an entry names, and run it.")
    ] = False,
) -> None:
    """Print the leaderboards, check them, write their page, or run a seed of an entry again."""
    from dmrlad_bench.reports.formats import check_format
    from dmrlad_bench.reports.leaderboard import README, read_entries
    from dmrlad_bench.reports.leaderboard_tables import leaderboard_markdown, leaderboard_tables, leaderboard_text

    check_format(form)
    if reproduce is not None:
        if seed is None or check or markdown or recompute or folder is not None:
            raise CardError("--reproduce: expected --seed N with it, and none of --check, --markdown, --recompute and --folder")
        _reproduce(reproduce, seed, out, trust_code)
        return
    if seed is not None or out is not None or trust_code:
        raise CardError("--seed, --out and --trust-code: go with --reproduce ENTRY")
    published = register_folder("leaderboards")
    if folder is None and (markdown or recompute):
        _refuse_installed(published)
    folder = published if folder is None else folder
    if recompute:
        _recompute(folder)
    if markdown:
        from dmrlad_bench.cards.writing import write_atomic

        write_atomic(folder / README, leaderboard_markdown(read_entries(folder)).encode())
        print(f"written: {folder / README}")
    if check:
        _check(folder)
    if not (recompute or markdown or check):
        entries = _of_families(read_entries(folder), families or [])
        if form == "table" and entries:
            _show(leaderboard_tables(entries))
        else:
            write_text(leaderboard_text(entries, form) if entries else "no entries yet\n")


def reference(
    runs: Runs,
    write: Annotated[bool, typer.Option("--write", help="Write them onto the families' cards of this checkout.")] = False,
    allow_short: Annotated[
        bool, typer.Option("--allow-short", help="Write them even if the oracle's runs are too few or too short; the card says so.")
    ] = False,
) -> None:
    """Reference scores of families from finished runs of random, still, blind and oracle: printed as the card's table."""
    from dmrlad_bench.reports.reading import read_runs
    from dmrlad_bench.reports.references import measure_references, with_reference

    measured = measure_references(read_runs(runs))
    for entry in measured:
        print(f"# {entry.family}{f': oracle too short: {entry.short}' if entry.short else ''}\n{entry.toml()}")
    if not write:
        return
    lacking = next((entry for entry in measured if entry.short), None)
    if lacking is not None and not allow_short:
        raise CardError(f"family {lacking.family}: oracle too short: {lacking.short}; pass --allow-short to write it all the same")
    from dmrlad_bench.cards.writing import write_atomic

    folder = register_folder("envs")
    _refuse_installed(folder)
    paths = {folder / f"{load_family(entry.family).name}.toml": entry for entry in measured}
    texts = {path: with_reference(path.read_text(encoding="utf-8"), entry, path) for path, entry in paths.items()}
    for path, text in texts.items():
        write_atomic(path, text.encode())
        print(f"written: {path}")


def _reproduce(path: Path, seed: int, out: Path | None, trust_code: bool) -> None:
    import tempfile

    from dmrlad_bench.harness.reproduce import reproduce
    from dmrlad_bench.harness.signals import interrupt_on_signals
    from dmrlad_bench.reports.leaderboard import read_entry

    entry = read_entry(path)
    import_from_here()
    interrupt_on_signals()
    with tempfile.TemporaryDirectory() as temporary:
        found = reproduce(entry, seed, Path(temporary) if out is None else out, trust_code)
    print(found.text)
    if not found.agrees:
        raise typer.Exit(1)


def _published_in() -> Path:
    """The leaderboards of the checkout that the package is installed from; raises `CardError` where it is none."""
    folder = register_folder("leaderboards")
    if folder.parent.name == "_registers":
        raise CardError("submit: this package is not a checkout, whose leaderboards/ entries go to; name a folder with --out DIR")
    return folder


def _of_families(entries: Sequence[Entry], families: Sequence[str]) -> list[Entry]:
    """The entries of these families, by id or bare name; all where none is named. Raises `CardError` for an unknown one."""
    wanted = {load_family(name).id for name in families}
    return [entry for entry in entries if not wanted or entry.family.id in wanted]


def _check(folder: Path) -> None:
    from dmrlad_bench.reports.checking import check_leaderboards
    from dmrlad_bench.reports.leaderboard import entry_files

    faults = check_leaderboards(folder)
    if faults:
        raise typer.Exit(max(fail(fault, 2) for fault in faults))
    print(f"{folder}: {len(entry_files(folder))} entries, all in order")


def _recompute(folder: Path) -> None:
    from dmrlad_bench.cards.writing import write_atomic
    from dmrlad_bench.reports.leaderboard import content_digest, entry_files, read_entry, remake
    from dmrlad_bench.reports.reading import reference_of

    entries = {path: read_entry(path) for path in entry_files(folder)}
    for path, entry in entries.items():
        if entry.content_digest != content_digest(entry):
            raise CardError(f"{path}: changed after it was made: key 'content_digest' is not the digest of the content")
    for path, entry in entries.items():
        text = remake(entry, reference_of(entry.runs[0])).json_text()
        if path.read_bytes() != text.encode():
            write_atomic(path, text.encode())
            print(f"recomputed: {path}")


def _refuse_installed(folder: Path) -> None:
    if folder.parent.name == "_registers":
        raise CardError(f"{folder}: belongs to an installed package; work in a checkout, or name another folder")


def _show(tables: Sequence[ReportTable]) -> None:
    """Tables as wide as they need to be where nobody's terminal limits them."""
    from dmrlad_bench.reports.formats import plain, rich_tables

    console = table_console()
    if console.is_terminal:
        console.print(rich_tables(tables))
    else:
        write_text(plain(tables))
