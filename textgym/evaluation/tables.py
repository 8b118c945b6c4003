"""Evaluations as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from textgym.evaluation.evaluation import Evaluation
from textgym.evaluation.importance import OffPolicyEstimate
from textgym.matching.estimates import Estimate

if TYPE_CHECKING:
    from rich.table import Table


def table(evaluation: Evaluation, title: str) -> Table:
    """Every number with its standard error and its 95% interval, where it has one."""
    from rich.markup import escape
    from rich.table import Table

    of_frontier = {
        "  share of the attainable reward at this KL": evaluation.share_of_attainable,
        "  times the least KL for this reward": evaluation.times_least_kl,
    }
    rows: list[tuple[str, Estimate | float | None]] = [("reward", evaluation.reward)]
    rows += [(f"  {name}", value) for name, value in evaluation.components.items()]
    rows += [(f"pass@{k}", value) for k, value in evaluation.pass_at.items()]
    rows += [(f"not trained on: {name}", value) for name, value in evaluation.other_components.items()]
    rows += [
        ("KL to reference (nats per text)", evaluation.kl_to_reference),
        *((name, value) for name, value in of_frontier.items() if value is not None),
        ("entropy (nats per token)", evaluation.entropy),
        ("length (tokens)", evaluation.length),
        *([("turns", evaluation.turns)] if evaluation.turns else []),
        ("ended by EOS", evaluation.eos_share),
        ("distinct-1", evaluation.distinct_1),
        ("distinct-2", evaluation.distinct_2),
        ("distinct-3", evaluation.distinct_3),
        ("self-BLEU", evaluation.self_bleu),
    ]
    made = Table(title=escape(title), title_justify="left")
    for name in ("", "mean", "standard error", "95% interval"):  # names wrap, so that no number is cut
        made.add_column(name, justify="left" if not name else "right", no_wrap=bool(name))
    for name, value in rows:
        if isinstance(value, Estimate):
            made.add_row(escape(name), f"{value.value:.4f}", f"{value.standard_error:.4f}", in_words(value))
        else:
            made.add_row(escape(name), "-" if value is None else f"{value:.4f}", "", "")
    return made


def off_policy_table(title: str, logged: Estimate, estimates: Mapping[str, OffPolicyEstimate | str]) -> Table:
    """The return that was logged, and below it every off-policy estimate; a text stands for one that was refused."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(title=escape(title), title_justify="left")
    for heading in ("", "value", "standard error", "95% interval", "effective sample size"):
        made.add_column(heading, justify="right" if heading else "left")
    rows: dict[str, Estimate | OffPolicyEstimate | str] = {"as logged": logged, **estimates}
    for name, estimate in rows.items():
        if isinstance(estimate, str):
            made.add_row(name, "refused")
            continue
        size = f"{estimate.effective_sample_size:.1f}" if isinstance(estimate, OffPolicyEstimate) else ""
        made.add_row(name, f"{estimate.value:.4f}", f"{estimate.standard_error:.4f}", in_words(estimate), size)
    return made


def in_words(estimate: Estimate | OffPolicyEstimate) -> str:
    """The 95% interval; nothing where it is not known."""
    low, high = estimate.interval()
    return "" if math.isnan(low) else f"{low:.4f}..{high:.4f}"
