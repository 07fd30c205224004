"""Pictures of a linear probe: accuracy over the number of examples, and a map of the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmctl.evals.probe import Point, classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("C0", "C7", "C1")
MARKERS = "os^Dv<>pP*Xhd"


def plot_curve(points: Sequence[Point], title: str, folder: Path) -> list[Path]:
    """Accuracy with one standard error over the draws of examples, a line for each contender, and chance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    shots = np.array([point.shots for point in points])
    for name, colour in zip(points[0].accuracies, COLOURS, strict=False):
        mean = 100 * np.array([point.mean(name) for point in points])
        error = 100 * np.nan_to_num([point.stderr(name) for point in points])
        axes.plot(shots, mean, marker="o", markersize=4, linewidth=1.6, color=colour, label=name)
        axes.fill_between(shots, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    axes.plot(shots, [100 * point.chance for point in points], linestyle="--", linewidth=1, color="grey", label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("examples of each class")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.legend(frameon=False, fontsize=9)
    return _saved(figure, folder / "probe_curve")


def flat(rows: np.ndarray, seed: int) -> np.ndarray:
    """[documents, D] -> [documents, 2] by t-SNE (van der Maaten & Hinton 2008), of rows scaled as for the classifier."""
    from sklearn.manifold import TSNE

    scaled = classifier(rows, 1.0)[:-1].fit_transform(rows)
    return TSNE(2, perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=seed).fit_transform(scaled)


def plot_map(panels: dict[str, np.ndarray], labels: Sequence[str], title: str, folder: Path) -> list[Path]:
    """A panel for each contender: its documents [documents, 2] coloured by class."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels) + 2.6, 4.8), layout="constrained")
    drawn = figure.subplots(1, len(panels), squeeze=False)
    names, classes = np.array(labels), list(dict.fromkeys(labels))
    colours = colormaps["tab20"](np.arange(20))
    for axes, (name, places) in zip(drawn[0], panels.items(), strict=True):
        for number, label in enumerate(classes):
            chosen = places[names == label]
            axes.scatter(
                *chosen.T, s=16, color=colours[2 * number % 20 + 2 * number // 20], marker=MARKERS[number % len(MARKERS)],
                linewidth=0, label=label,
            )  # fmt: skip
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, told = drawn[0][0].get_legend_handles_labels()
    figure.legend(handles, told, loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return _saved(figure, folder / "probe_map")


def _saved(figure: "Figure", stem: Path) -> list[Path]:
    files = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files
