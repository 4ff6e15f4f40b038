"""Figures of a comparison: learning curves, adaptation, intervals, performance profiles."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.cards.writing import refuse_link, write_atomic
from dmrlad_bench.protocol import CURVE_SPLIT
from dmrlad_bench.reports.agent_styles import style_of
from dmrlad_bench.reports.comparison import DPI, Comparison
from dmrlad_bench.reports.estimates import CONFIDENCE, Estimate, of_runs
from dmrlad_bench.reports.mixing import Group
from dmrlad_bench.reports.run_statistics import run_band
from dmrlad_bench.reports.statistics import FEWEST_RUNS, performance_profile

SUFFIXES = (".png", ".pdf", ".svg")
WITHOUT_DATE = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}  # the same comparison, the same file
PANEL = (4.2, 3.2)  # inches, as all lengths here
NARROWEST = 6.0
LEGEND_LINE, LETTER = 0.55, 0.075  # a legend's line and spaces; a letter of the title or of a label
THOUSAND = 1000.0
THIN = 0.6  # line width of a single run, points
MARKS = 8  # on a learning curve, about
LEAST_SIZE, MOST_SIZE, MOST_DPI, MOST_PIXELS = 1.0, 100.0, 2400, 2**28
SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)")
Panel = Callable[[Axes, Comparison, str], None]


def comparison_figure(comparison: Comparison, kind: str = "summary", size: tuple[float, float] | None = None) -> Figure:
    """Draw a comparison: one row of panels for each family.

    Raises:
        CardError: unknown kind, or profiles where no family has reference scores.
    """
    check_kind(kind)
    panels = KINDS[kind]
    if kind == "profiles" and all(group.reference is None for group in comparison.groups):
        raise CardError("kind 'profiles': no family here has reference scores of blind and oracle, so there are no normalised scores")
    with seaborn.axes_style("whitegrid"), matplotlib.rc_context({"axes.titlesize": 9, "axes.labelsize": 8, "font.size": 8}):
        rows = len(comparison.families)
        width = max(NARROWEST, PANEL[0] * len(panels)) if size is None else size[0]
        columns = max(1, min(5, len(comparison.agents), int(width / (LEGEND_LINE + LETTER * max(map(len, comparison.agents))))))
        height = PANEL[1] * rows + 0.4 + 0.2 * -(-len(comparison.agents) // columns) if size is None else size[1]
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = np.array(figure.subplots(rows, len(panels), squeeze=False))
        for row, family in enumerate(comparison.families):
            for axis, panel in zip(axes[row], panels, strict=True):
                panel(axis, comparison, family)
        styles = {group.label: style_of(group.agent) for group in comparison.groups}
        handles = [Line2D([], [], **styles[agent].marked, markersize=4, label=agent) for agent in comparison.legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
        title = "; ".join([_title(comparison), *(f"MIXED: {message[:100]}" for message in comparison.mixed)])
        figure.suptitle(textwrap.fill(title, int(width / LETTER)), fontsize=9)
    return figure


def check_kind(kind: str) -> None:
    """Raises `CardError` for a kind of figure that there is none of."""
    if kind not in KINDS:
        raise CardError(f"unknown kind of figure {kind!r}{nearest(kind, KINDS)}; accepted: {', '.join(KINDS)}")


def check_plot_path(path: Path | str) -> Path:
    """The path of a figure to be written; raises `CardError` for an unknown suffix or where there is no such folder."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise CardError(
            f"{path}: a figure's file ends with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path.suffix or 'no suffix'!r}"
        )
    if not path.parent.is_dir():
        raise CardError(f"{path}: there is no folder {path.parent}")
    refuse_link(path)
    return path


def check_size(size: tuple[float, float] | None, dpi: int) -> None:
    """Raises `CardError` for a size in inches or a resolution that a figure cannot have."""
    if not 1 <= dpi <= MOST_DPI:
        raise CardError(f"dpi: expected 1 to {MOST_DPI}, got {dpi}")
    if size is None:
        return
    if not all(LEAST_SIZE <= side <= MOST_SIZE for side in size):
        raise CardError(f"size: expected {LEAST_SIZE:g} to {MOST_SIZE:g} inches, got {size[0]:g}x{size[1]:g}")
    if size[0] * size[1] * dpi**2 > MOST_PIXELS:
        raise CardError(f"size {size[0]:g}x{size[1]:g} with {dpi} dots an inch: more than {MOST_PIXELS} pixels")


def size_of(text: str) -> tuple[float, float]:
    """`7x3.5` as inches; raises `CardError` for any other form."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise CardError(f"size {text!r}: expected WIDTHxHEIGHT in inches, as 7x3.5")
    return float(found[1]), float(found[2])


def save_figure(figure: Figure, path: Path | str, dpi: int = DPI) -> None:
    """Write a figure by the suffix of its path; raises `CardError`."""
    path, drawn = check_plot_path(path), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dmrlad-bench"}):
        figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=dpi, metadata=WITHOUT_DATE[path.suffix.lower()])
    write_atomic(path, drawn.getvalue())


def learning_panel(axis: Axes, comparison: Comparison, family: str) -> None:
    """Mean over test tasks of episode K while training, against environment steps: mean over runs and its band."""
    groups = comparison.of_family(family)
    for group in groups:
        (steps, values), style = learning_curves(group), style_of(group.agent)
        mean = values.mean(axis=0)
        if len(steps) == 1:  # an agent that does not learn
            axis.axhline(mean[0], **style.marked, markersize=4, linewidth=1.2)
            continue
        every = max(1, len(steps) // MARKS)
        axis.plot(steps / THOUSAND, mean, **style.marked, markersize=4, markevery=(every - 1, every), linewidth=1.4)
        _band(axis, steps / THOUSAND, values, style.colour)
    axis.set(title=f"{family}: learning, validation tasks", xlabel="environment steps, thousands", ylabel=_quantity(groups))


def _band(axis: Axes, x: np.ndarray, curves: np.ndarray, colour: str, ends: tuple[float, float] | None = None) -> None:
    """The interval of the mean of `(runs, points)` curves at each point; under three runs, each run as a thin line."""
    band = run_band(curves, CONFIDENCE)
    if band is not None:
        low, high = band if ends is None else np.clip(band, *ends)
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    elif len(curves) > 1:
        axis.plot(x, curves.T, color=colour, linewidth=THIN, alpha=0.7)


def learning_curves(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """`(points,)` environment steps and `(runs, points)` means over validation tasks of episode K, normalised where there is a reference.

    Runs are joined at the evaluations that all of them have; where episodes end early, the steps are the mean over runs.
    """
    curves = [{point.iteration: point for point in run.result.curve if CURVE_SPLIT in point.scores} for run in group.runs]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    steps = np.array([[curve[iteration].environment_steps for iteration in shared] for curve in curves], dtype=float)
    returns = np.array([[curve[iteration].scores[CURVE_SPLIT].returns[-1] for iteration in shared] for curve in curves], dtype=float)
    if not shared:
        raise CardError(
            f"{group.label} on {group.family}: its seeds were never evaluated after the same iteration, so they have no common curve"
        )
    return steps.mean(axis=0), group.normalise(returns)


def adaptation_panel(axis: Axes, comparison: Comparison, family: str) -> None:
    """Episode by episode of the trial, with intervals; under three runs, each run as a thin line."""
    groups = comparison.of_family(family)
    for number, group in enumerate(groups):
        shift = (number - (len(groups) - 1) / 2) * 0.4 / len(groups)
        found, style = [_score(group, episode) for episode in range(group.episodes)], style_of(group.agent)
        places = np.arange(1, group.episodes + 1) + shift
        axis.errorbar(
            places,
            [entry.value for entry in found],
            yerr=_whiskers(found),
            **style.marked,
            markersize=4,
            linewidth=1.2,
        )
        if 1 < len(group.seeds) < FEWEST_RUNS:
            axis.plot(places, [entry.values for entry in found], color=style.colour, linewidth=THIN, alpha=0.7)
    episodes = max(group.episodes for group in groups)
    axis.set(title=f"{family}: adaptation", xlabel="episode of the trial", ylabel=_quantity(groups), xticks=range(1, episodes + 1))


def intervals_panel(axis: Axes, comparison: Comparison, family: str) -> None:
    """Episode K of every agent, in the legend's order, with intervals; under three runs, each run as a small mark."""
    groups = sorted(comparison.of_family(family), key=lambda group: comparison.legend.index(group.label))
    for number, group in enumerate(groups):
        found, style = _score(group, -1), style_of(group.agent)
        axis.errorbar(found.value, -number, xerr=_whiskers([found]), color=style.colour, marker=style.marker, markersize=5, linewidth=1.6)
        if 1 < found.runs < FEWEST_RUNS:
            axis.plot(found.values, [-number] * found.runs, "|", color=style.colour, markersize=8)
    axis.set_yticks([-number for number in range(len(groups))], [group.label for group in groups])
    axis.set(title=f"{family}: last episode", xlabel=_quantity(groups), ylim=(-len(groups) + 0.4, 0.6))


def profile_panel(axis: Axes, comparison: Comparison, family: str) -> None:
    """Share of tasks in which the normalised score in episode K lies above a threshold: mean over runs and its band."""
    axis.set(title=f"{family}: performance profile", xlabel="normalised score", ylabel="share of tasks above it", ylim=(-0.02, 1.02))
    drawn = [(group, scores[:, :, -1]) for group in comparison.of_family(family) if (scores := group.normalised) is not None]
    if not drawn:
        axis.text(0.5, 0.5, "no reference scores", transform=axis.transAxes, ha="center")
        return
    low = min(0.0, min(float(scores.min()) for _, scores in drawn))
    high = max(1.0, max(float(scores.max()) for _, scores in drawn))
    thresholds = np.linspace(low - 0.02, high + 0.02, 401)
    for group, scores in drawn:
        style = style_of(group.agent)
        axis.step(thresholds, performance_profile(scores, thresholds), where="post", **style.line, linewidth=1.2)
        shares = np.stack([performance_profile(run[None], thresholds) for run in scores])
        _band(axis, thresholds, shares, style.colour, (0.0, 1.0))


KINDS: dict[str, tuple[Panel, ...]] = {
    "summary": (learning_panel, adaptation_panel, intervals_panel, profile_panel),
    "learning": (learning_panel,),
    "adaptation": (adaptation_panel,),
    "profiles": (profile_panel,),
}


def _score(group: Group, episode: int) -> Estimate:
    """Mean normalised score, or mean return where there is no reference."""
    normalised = group.normalised
    return of_runs(group.returns[:, :, episode] if normalised is None else normalised[:, :, episode])


def _whiskers(found: list[Estimate]) -> np.ndarray | None:
    ends = [(entry.value - entry.low, entry.high - entry.value) for entry in found if entry.low is not None and entry.high is not None]
    return np.maximum(np.transpose(ends), 0.0) if len(ends) == len(found) else None


def _quantity(groups: Sequence[Group]) -> str:
    return "mean return" if any(group.reference is None for group in groups) else "mean of normalised scores"


def _title(comparison: Comparison) -> str:
    budgets = " and ".join(dict.fromkeys(group.budget for group in comparison.groups))
    return f"budget {budgets}, {comparison.view}; bands and bars: {CONFIDENCE:.0%} intervals over runs, thin: single runs"
