"""What `scripts/demo.py` shows of a training: the learning curve, and the policy before and after."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from scripts.reports.runs import TOKENS, read_run
from textgym.evaluation import Evaluation


def draw_curve(out: Path, title: str) -> Path:
    """The learning curve: reward and KL to the reference against tokens, from the training's CSV log."""
    from matplotlib.figure import Figure

    run = read_run(out)
    figure = Figure(figsize=(7, 4), layout="constrained")
    reward = figure.subplots()
    curves = [(reward, "rollout/reward", "mean sentiment of a rollout", "tab:green")]
    if "rollout/kl_to_reference" in run.log:  # not with --kl-coef 0
        curves.append((reward.twinx(), "rollout/kl_to_reference", "KL to the reference (nats per text)", "tab:gray"))
    for axis, column, label, color in curves:
        axis.plot(run.log[TOKENS], run.log[column], color=color)
        axis.set_ylabel(label, color=color)
    reward.set_xlabel("tokens generated")
    reward.set_title(title)
    figure.savefig(out / "learning_curve.png", dpi=150)
    return out / "learning_curve.png"


def side_by_side(before: Evaluation, after: Evaluation) -> Table:
    """The two evaluations as a table."""
    table = Table(title=f"{before.episodes} fresh texts each", title_justify="left")
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    rows = {
        "reward": lambda e: f"{e.reward.value:+.3f} ± {e.reward.standard_error:.3f}",
        "KL to the reference (nats per text)": lambda e: f"{e.kl_to_reference.value:z.2f}",
        "length (tokens)": lambda e: f"{e.length.value:.1f}",
        "distinct-2": lambda e: f"{e.distinct_2:.3f}",
        "self-BLEU": lambda e: f"{e.self_bleu:.3f}",
        "entropy (nats per token)": lambda e: f"{e.entropy.value:.2f}",
    }
    for name, cell in rows.items():
        table.add_row(name, cell(before), cell(after))
    return table
