"""A run as one HTML page that needs no network: numbers, curves, texts over time, and where the policy has moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.ticker import MaxNLocator

from scripts.reports.heat import FULL_KL, Heat, colour
from scripts.reports.runs import PANELS, Run
from textgym.evaluation.history import STEP

LEFT, TOP, WIDTH, HEIGHT = 46, 8, 304, 162
"""Where a chart's frame stands in its picture of 360 x 200."""


def page(run: Run, heat: Heat | None) -> str:
    """The page.

    Args:
        run: what is shown.
        heat: texts of the newest checkpoint that are shown token by token, if any.
    """
    state, evaluations = run.state, run.evaluations
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=here, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html.j2"
    )
    agent, env_id = state.get("algorithm", "a run"), state.get("env_id", "")
    told = ("env_id", "env_kwargs", "reference", "arguments", "versions")
    return template.render(
        title=f"{agent} on {env_id}: {run.name}" if env_id else run.name,
        about=f"{int(run.log['time/total_timesteps'][-1]):,} tokens of training",
        tiles=tiles(run),
        charts=[*(over_tokens(run, *panel) for panel in PANELS.values()), reward_over_kl(run)],
        evaluated=bool(evaluations),
        heat=heat,
        colour=colour,
        full_kl=FULL_KL,
        evaluations=[{"head": head(row), "samples": row["samples"]} for row in evaluations],
        arguments=json.dumps({name: state[name] for name in told if name in state}, indent=1) if state else "",
    )


def tiles(run: Run) -> list[tuple[str, str]]:
    """The newest numbers, of the last evaluation where there is one."""
    if run.evaluations:
        last = run.evaluations[-1]
        named = {
            "reward": "reward",
            "KL (nats per text)": "kl_to_reference",
            "entropy (nats per token)": "entropy",
            "length (tokens)": "length",
            "share that ends": "eos_share",
        }
        found = [(label, f"{last[name]['value']:.2f}") for label, name in named.items()]
        return [*found, ("distinct-2", f"{last['distinct_2']:.2f}")]
    logged = [(title, run.rollouts(column)[1]) for title, column, _ in PANELS.values()]
    return [(title, f"{values[-1]:.2f}") for title, values in logged if len(values)]


def head(row: dict[str, Any]) -> str:
    """An evaluation in a line."""
    return f"{row[STEP]:,} tokens: reward {row['reward']['value']:+.3f}, KL {row['kl_to_reference']['value']:.2f} nats"


def over_tokens(run: Run, title: str, column: str, name: str) -> dict[str, Any]:
    """The chart of one of `PANELS`."""
    return chart(title, run.rollouts(column), run.evaluated(name), "{:,.0f} tokens")


def reward_over_kl(run: Run) -> dict[str, Any]:
    """The chart of what the reward costs."""
    kl, reward = (run.rollouts(PANELS[name][1], 15)[1] for name in ("kl", "reward"))
    line = (kl, reward) if len(kl) == len(reward) else (np.empty(0), np.empty(0))
    dots = run.evaluated("kl_to_reference")[1], run.evaluated("reward")[1]
    return chart("reward over KL to the reference (nats per text)", line, dots, "{:.2f} nats")


def chart(title: str, line: Sequence[np.ndarray], dots: Sequence[np.ndarray], x_form: str) -> dict[str, Any]:
    """Points and ticks in the coordinates of the picture."""
    xs, ys = (np.concatenate([a, b]) for a, b in zip(line, dots, strict=True))
    if not len(xs):
        return {"title": f"{title}: not logged", "line": "", "dots": [], "x_ticks": [], "y_ticks": []}
    x_ticks, y_ticks = (
        MaxNLocator(n).tick_values(v.min(), max(v.max(), v.min() + 1e-9)) for n, v in ((4, xs), (4, ys))
    )
    at_x = lambda x: round(LEFT + WIDTH * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]), 1)  # noqa: E731
    at_y = lambda y: round(TOP + HEIGHT * (y_ticks[-1] - y) / (y_ticks[-1] - y_ticks[0]), 1)  # noqa: E731
    return {
        "title": title,
        "line": " ".join(f"{at_x(x)},{at_y(y)}" for x, y in zip(*line, strict=True)),
        "dots": [(at_x(x), at_y(y), f"{x_form.format(x)}: {y:.4g}") for x, y in zip(*dots, strict=True)],
        "x_ticks": [(at_x(x), f"{x:,.6g}") for x in x_ticks],
        "y_ticks": [(at_y(y), f"{y:,.6g}") for y in y_ticks],
    }
