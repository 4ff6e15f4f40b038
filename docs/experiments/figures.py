"""Draws the learning curves of docs/experiments.md from the results beside this file: `python docs/experiments/figures.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn

from dmrlad_bench.reports.results import Result, read_result

FOLDER = Path(__file__).resolve().parent
STANDING_STILL = {"CheetahVelSparse": -400.0}


def results() -> dict[str, list[Result]]:
    """The recorded results by family name."""
    found: dict[str, list[Result]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        result = read_result(path)
        found.setdefault(result.family.id.removeprefix("DMRLAD/").rsplit("-v", 1)[0], []).append(result)
    return found


def draw(name: str, runs: list[Result]) -> Path:
    """Return and success on test tasks in the first and the last episode of the trial, against environment steps."""
    agents = sorted({run.agent.name for run in runs})
    colours = dict(zip(agents, seaborn.color_palette("colorblind", len(agents)), strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for run in runs:
        steps = [point.environment_steps / 1000 for point in run.curve]
        for axis, values in zip(axes, ("returns", "success"), strict=True):
            for episode, style in ((0, ":"), (-1, "-")):
                series = [getattr(point.scores["test"], values)[episode] for point in run.curve]
                label = f"{run.agent.name}, episode {1 if episode == 0 else len(point_episodes(run))}"
                known = axis.get_legend_handles_labels()[1]
                axis.plot(steps, series, style, color=colours[run.agent.name], alpha=0.8, label=None if label in known else label)
    axes[0].set(title=f"{name}: return on held-out tasks", xlabel="environment steps, thousands", ylabel="return of an episode")
    axes[1].set(title="success", xlabel="environment steps, thousands", ylabel="share of tasks", ylim=(-0.02, 1.02))
    if name in STANDING_STILL:
        axes[0].axhline(STANDING_STILL[name], color="grey", linewidth=0.8, linestyle="--", label="standing still")
    axes[0].legend(fontsize=8)
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def point_episodes(run: Result) -> tuple[float, ...]:
    """Returns of the trial's episodes at the last point of the curve."""
    return run.curve[-1].scores["test"].returns


def table(found: dict[str, list[Result]]) -> str:
    """The final test scores of every recorded run as a Markdown table."""
    lines = [
        "| family | agent | seed | environment steps | minutes | return, episodes 1 / 2 / 3 | success, episodes 1 / 2 / 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        for run in sorted(runs, key=lambda run: (run.agent.name, run.seed)):
            scores = run.scores("test")
            returns = " / ".join(f"{value:.1f}" for value in scores.mean_returns)
            success = " / ".join(f"{value:.2f}" for value in scores.success_rates)
            minutes = run.wall_seconds.total / 60
            lines.append(f"| {name} | {run.agent.name} | {run.seed} | {run.environment_steps} | {minutes:.1f} | {returns} | {success} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw every family's figure and write the table."""
    seaborn.set_theme(style="whitegrid")
    found = results()
    for name, runs in found.items():
        print(draw(name, runs))
    (FOLDER / "table.md").write_text(table(found))


if __name__ == "__main__":
    main()
