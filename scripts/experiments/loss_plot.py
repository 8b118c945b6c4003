"""A figure of docs/losses.md: where losses come to rest, beside the best that any policy earns at the same KL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from textgym.exact import Objective, soft_optimal

MARKERS = {"reward": "o", "k2": "s", "plain k3": "^"}
"""Penalties of the family; k3 times the ratio has the fixed points of k2."""


def draw(rows: list[dict[str, Any]], objective: Objective, file: Path) -> None:
    """Draw the fixed points of the family and of TRL's trainers over their KL to the reference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    frontier = [_point(objective, beta) for beta in torch.logspace(-1.5, 2, 100).tolist()]
    axes.plot(*zip(*frontier, strict=True), color="0.6", label="the best at each KL (exact)")
    rest = [row for row in rows if "kl" in row]
    for penalty, marker in MARKERS.items():
        found = [row for row in rest if row["table"] == "family" and f" | {penalty} | " in row["name"]]
        label = f"KL in the reward, {len(found)} losses" if penalty == "reward" else f"{penalty} as a loss"
        axes.scatter([r["kl"] for r in found], [r["reward"] for r in found], marker=marker, alpha=0.6, label=label)
    trl = [row for row in rest if row["table"] == "trl"]
    axes.scatter([r["kl"] for r in trl], [r["reward"] for r in trl], marker="x", color="black", label="TRL's trainers")
    axes.scatter(*_point(objective, objective.beta), marker="*", s=220, color="gold", edgecolors="black", zorder=3)
    axes.annotate("the optimum", _point(objective, objective.beta), xytext=(8, -14), textcoords="offset points")
    axes.set(xlabel="KL to the reference, nats per text", ylabel="expected reward")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(file, dpi=150)


def _point(objective: Objective, beta: float) -> tuple[float, float]:
    """KL and reward of the optimum at a beta."""
    tree = objective.tree
    policy = soft_optimal(tree, objective.reference, objective.steps, beta).policy
    return float(tree.kl(policy, objective.reference)), float(
        tree.expectation(policy, tree.accumulate(objective.steps))
    )
