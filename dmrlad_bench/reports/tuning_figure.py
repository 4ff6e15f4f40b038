"""A study as a figure: its history, and a slice for each tuned key."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from dmrlad_bench.reports.tuning_tables import TrialRecord, best_trial

COLUMNS = 3
PANEL = (3.6, 2.6)  # inches
TITLE_LETTERS = 48
COMPLETE, PRUNED, BEST = "#0072B2", "#999999", "#D55E00"  # Okabe and Ito's


def study_figure(name: str, trials: Sequence[TrialRecord], logarithmic: set[str]) -> Figure:
    """Draw a study: returns in the order of trials with the best so far, and against the values of each key.

    Args:
        name: of the study.
        trials: by number.
        logarithmic: keys whose axis is logarithmic.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    rows = -(-(1 + len(keys)) // COLUMNS)
    settings: dict[Any, Any] = {"axes.titlesize": 9, "axes.labelsize": 8, "font.size": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}
    with seaborn.axes_style("whitegrid"), matplotlib.rc_context(settings):
        figure = Figure(figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = np.array(figure.subplots(rows, COLUMNS, squeeze=False)).ravel()
        _history(axes[0], trials)
        for axis, key in zip(axes[1:], keys, strict=False):
            _slice(axis, trials, key, key in logarithmic)
        for axis in axes[1 + len(keys) :]:
            axis.set_axis_off()
        title = f"study {name}: return of validation tasks in the last episode; crosses: pruned, at the return where they were stopped"
        figure.suptitle(textwrap.fill(title, TITLE_LETTERS * COLUMNS), fontsize=9)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _history(axis: Axes, trials: Sequence[TrialRecord]) -> None:
    _points(axis, trials, lambda trial: trial.number)
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if complete:
        best = np.maximum.accumulate([float(trial.value or 0.0) for trial in complete])
        axis.step([trial.number for trial in complete], best, where="post", color=BEST, linewidth=1.2, label="best so far")
    axis.set(title="history", xlabel="trial", ylabel="return")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _slice(axis: Axes, trials: Sequence[TrialRecord], key: str, logarithmic: bool) -> None:
    values = [trial.values[key] for trial in trials if key in trial.values]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    names = sorted({json.dumps(value) for value in values})
    own = [trial for trial in trials if key in trial.values]
    if numbers:
        _points(axis, own, lambda trial: trial.values[key])
        if logarithmic:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
    else:
        _points(axis, own, lambda trial: names.index(json.dumps(trial.values[key])))
        axis.set_xticks(range(len(names)), names)
    section, _, last = key.partition(".")
    axis.set(title=last, xlabel=section, ylabel="return")


def _points(axis: Axes, trials: Sequence[TrialRecord], place: Callable[[TrialRecord], float]) -> None:
    drawn = [(trial, trial.value) for trial in trials if trial.value is not None]
    best = best_trial(trials)
    for state, colour, marker in (("pruned", PRUNED, "x"), ("complete", COMPLETE, "o")):
        own = [(place(trial), value) for trial, value in drawn if trial.state == state and trial is not best]
        axis.scatter([x for x, _ in own], [y for _, y in own], s=16, color=colour, marker=marker, label=state)
    if best is not None and best.value is not None:
        axis.scatter([place(best)], [best.value], s=40, color=BEST, marker="*", label=f"best: trial {best.number}", zorder=3)
