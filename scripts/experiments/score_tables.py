"""The tables of scores, as Markdown, from what `Scores.to_json` says; and how two of them differ."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from scripts.env_pages import NOTE, fill
from scripts.experiments.comparison import AT_MOST, OF_FRONTIER
from textgym.evaluation.statistics import Interval

KNOWN = Path(__file__).parent.parent.parent / "docs" / "zoo.json"
"""The zoo's scores that are checked in."""
COLUMNS = {
    "score": ("score", "{:.3f}"),
    "reward": ("reward", "{:+.3f}"),
    "kl_to_reference": ("KL to the reference", "{:.2f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
}


def known_scores() -> dict[str, Any] | None:
    """The zoo's scores that are checked in, if there are any."""
    return json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.is_file() else None


def markdown(report: dict[str, Any]) -> str:
    """A table for each id, that of all ids, and how likely one agent scores higher than another."""
    parts = [_of_id(found) for found in report["ids"].values()]
    return "\n".join([*parts, _of_all(report), _of_improvement(report)])


def _table(rows: list[list[str]]) -> str:
    header, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, "|---" + "|--:" * (len(rows[0]) - 1) + "|", *others]) + "\n"


def _of_id(found: dict[str, Any]) -> str:
    scale = found["scale"]
    how = "computed" if scale["is_exact"] else "estimated"
    columns = COLUMNS | OF_FRONTIER if found["frontier"] else COLUMNS
    rows = [["agent", *(heading for heading, _ in columns.values())]]
    ordered = sorted((found["agents"] | found["best_of_n"]).items(), key=lambda item: -item[1]["score"]["mean"])
    rows += [
        [name, *(Interval(**m[c]).text(form) if c in m else "-" for c, (_, form) in columns.items())]
        for name, m in ordered
    ]
    notes = (
        f"{found['caption']}. Score 0 is a reward of {scale['start']:.3f}, 1 the most reward - {scale['beta']:g} KL, "
        f"{scale['best']:.3f}; both {how}."
    )
    if found["frontier"]:
        notes += f" {found['frontier']}. {AT_MOST}"
    text = f"## {found['title']}\n\n{fill(notes)}\n\n{_table(rows)}"
    return text + "".join(f"\n{failure}.\n" for failure in found["failed"])


def _of_all(report: dict[str, Any]) -> str:
    rows = [["agent", "interquartile mean", "95% interval", "mean"]]
    for agent, found in sorted(report["all"].items(), key=lambda item: -item[1]["interquartile_mean"]["value"]):
        iqm = found["interquartile_mean"]
        interval = f"{iqm['low']:.3f} to {iqm['high']:.3f}"
        rows.append([agent, f"{iqm['value']:.3f}", interval, Interval(**found["mean"]).text("{:.3f}")])
    return f"## All ids\n\n{_table(rows)}"


def _of_improvement(report: dict[str, Any]) -> str:
    agents = list(report["improvement"])
    rows = [["", *agents]]
    for agent in agents:
        cells = [report["improvement"][agent].get(other) for other in agents]
        rows.append([agent, *(_share(cell) if cell else "" for cell in cells)])
    words = """How likely a run of the row's agent scores higher than one of the column's on the same id. Bold where the
    95% interval leaves out a half: the others cannot be told apart by so few seeds."""
    return f"## Probability of improvement\n\n{fill(words)}\n\n{_table(rows)}"


def _share(cell: dict[str, float]) -> str:
    """Bold where the interval leaves out 0.5."""
    text = f"{cell['value']:.2f}"
    return text if cell["low"] <= 0.5 <= cell["high"] else f"**{text}**"


def differences(report: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Where two reports differ by more than the intervals of both, a line each; an agent that only one has, too."""
    lines = []
    for env_id, ours in report["ids"].items():
        theirs = known["ids"].get(env_id, {"agents": {}})["agents"]
        for agent in ours["agents"] | theirs:
            if agent not in ours["agents"] or agent not in theirs:
                lines.append(f"{env_id}: {agent} is only in one of both")
                continue
            new, old = (Interval(**found[agent]["score"]) for found in (ours["agents"], theirs))
            if abs(new.mean - old.mean) > math.hypot(new.half_width or 0.0, old.half_width or 0.0):
                lines.append(f"{env_id}: {agent} scores {new.text('{:.3f}')}, and {old.text('{:.3f}')} was known")
    return lines


def tell(report: dict[str, Any], out: Path, known: dict[str, Any] | None) -> str:
    """Write `out`/scores.json and .md; what is told of them, with how they differ from the scores that are known."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "scores.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "scores.md").write_text(markdown(report), encoding="utf-8")
    lines = [markdown(report), f"written: {out / 'scores'}.json and .md"]
    if known is not None:
        lines += differences(report, known) or ["all scores are within the intervals of those that are checked in"]
    return "\n".join(lines)


def zoo_page(report: dict[str, Any]) -> str:
    """The page of the zoo's scores."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    words = f"""\
What each agent reaches after a short training with the arguments in `scripts/configs`, whose comments say how they were
found. A run's score is its reward - beta KL, with the untrained model as 0 and the best policy as 1; ± and intervals
are of 95%, over seeds. `{report["command"]}` makes [these numbers](zoo.json) again and says where they differ by more
than the intervals; it can be interrupted, and repeats nothing that is done. They were made with {versions}.
[Comparing agents](compare.md) says what is measured and how it is aggregated."""
    agents = """\
`reinforce` takes the mean return of the whole rollout as its baseline, `rloo` that of the prompt's other texts; on the
toy, where a rollout has one prompt, both come to the same.
`distribution-matching` is f-DPG with the Jensen-Shannon divergence. `weighted-maximum-likelihood` is the same agent
with the forward KL and the adaptive proposal: it raises the likelihood of texts by their weights under the target. Both
have read 2,048 texts of the untrained model besides their tokens, or one for each prompt where there are more."""
    parts = ["# The zoo", NOTE, "", fill(words), "", fill(agents), "", markdown(report)]
    return "\n".join(parts)
