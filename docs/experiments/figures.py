"""Draws the learning curves of docs/experiments.md from the results beside this file: `python docs/experiments/figures.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn

from dmrlad_bench.reports.results import Result, read_result

FOLDER = Path(__file__).resolve().parent
# steps on the way: curves of all of them hide each other
IN_THE_TABLE_ONLY = {
    "dmrlad-discount-0.97",
    "dmrlad-pink",
    "dmrlad-white",
    "dmrlad-one-latent",
    "oracle-fourth-round",
    "dmrlad-no-relabel-fourth-round",
}
STANDING_STILL = {"CheetahVelSparse": -400.0}


def results() -> dict[str, list[tuple[str, Result]]]:
    """The recorded results and what to call them, by family name: `<family>--<label>--seed<N>.json`."""
    found: dict[str, list[tuple[str, Result]]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        family, label, _ = path.stem.split("--")
        found.setdefault(family, []).append((label, read_result(path)))
    return found


def draw(name: str, runs: list[tuple[str, Result]]) -> Path:
    """Return and success on test tasks in the first and the last episode of the trial, against environment steps."""
    labels = sorted({label for label, _ in runs})
    colours = dict(zip(labels, seaborn.color_palette("colorblind", len(labels)), strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
    for name_of_run, run in runs:
        steps = [point.environment_steps / 1000 for point in run.curve]
        for axis, values in zip(axes, ("returns", "success"), strict=True):
            for episode, style in ((0, ":"), (-1, "-")):
                series = [getattr(point.scores["test"], values)[episode] for point in run.curve]
                label = f"{name_of_run}, episode {1 if episode == 0 else len(run.curve[-1].scores['test'].returns)}"
                known = axis.get_legend_handles_labels()[1]
                axis.plot(steps, series, style, color=colours[name_of_run], alpha=0.8, label=None if label in known else label)
    axes[0].set(title=f"{name}: return on held-out tasks", xlabel="environment steps, thousands", ylabel="return of an episode")
    axes[1].set(title="success", xlabel="environment steps, thousands", ylabel="share of tasks", ylim=(-0.02, 1.02))
    if name in STANDING_STILL:
        axes[0].axhline(STANDING_STILL[name], color="grey", linewidth=0.8, linestyle="--", label="standing still")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def table(found: dict[str, list[tuple[str, Result]]]) -> str:
    """The final test scores of every recorded run as a Markdown table."""
    lines = [
        "| family | agent | seed | environment steps | minutes | return, episodes 1 / 2 / 3 | success, episodes 1 / 2 / 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        for label, run in sorted(runs, key=lambda entry: (entry[0], entry[1].seed)):
            scores = run.scores("test")
            returns = " / ".join(f"{value:.1f}" for value in scores.mean_returns)
            success = " / ".join(f"{value:.2f}" for value in scores.success_rates)
            minutes = run.wall_seconds.total / 60
            lines.append(f"| {name} | {label} | {run.seed} | {run.environment_steps} | {minutes:.1f} | {returns} | {success} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw every family's figure and write the table."""
    seaborn.set_theme(style="whitegrid")
    found = results()
    for name, runs in found.items():
        print(draw(name, [entry for entry in runs if entry[0] not in IN_THE_TABLE_ONLY]))
    (FOLDER / "table.md").write_text(table(found))


if __name__ == "__main__":
    main()
