"""What people said of pairs of texts, kept so that a kill at any key loses at most that key.

A folder holds `pairs.jsonl`, the pairs, written once; a journal for each rater, to which every verdict is appended and
brought to the disk; and `preferences.jsonl`, which is made of all journals and can be made again at any time. Left out:
two processes of one rater at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from textgym.preferences.agreement import krippendorff_alpha
from textgym.text_files import lines_of, parsed, write_json_lines

PAIRS, PREFERENCES, JOURNAL = "pairs.jsonl", "preferences.jsonl", "labels-{}.jsonl"
CODES = {"first": 1, "tie": 0, "second": -1}
"""Verdicts as numbers."""
WORDS = (*CODES, "skip", None)
"""What a line of a journal may say; None takes back what was said of the pair before."""


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, in no order that means anything."""

    prompt: str
    first: str
    second: str


def write_pairs(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write the pairs that are to be judged."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json_lines(folder / PAIRS, map(asdict, pairs))


def read_pairs(folder: Path) -> list[Pair]:
    """The pairs of a folder.

    Raises:
        ValueError: a line holds no pair.
        FileNotFoundError: there is no file of pairs.
    """
    found = []
    for where, line in lines_of(folder / PAIRS, "pairs"):
        row = parsed(line, where)
        if not isinstance(row, dict) or row.keys() != {"prompt", "first", "second"}:
            raise ValueError(f"{where} is {row!r}; it must have prompt, first and second")
        found.append(Pair(**row))
    return found


class Journal:
    """The verdicts of one rater, each on the disk when `append` returns.

    Attributes:
        verdicts: "first", "second", "tie" or "skip" by the number of the pair, the newest one last.
        was_cut: whether the file ended within a line, as a power cut may leave it; this end is then removed.

    Args:
        folder: of the pairs.
        rater: a name of letters, digits and underscores.
        num_pairs: how many pairs there are.

    Raises:
        ValueError: the name is none, or a line of the file is no verdict on one of the pairs.
    """

    def __init__(self, folder: Path, rater: str, num_pairs: int):
        if not rater.isidentifier():
            raise ValueError(f"the rater's name is {rater!r}; it must consist of letters, digits and underscores")
        self.path = folder / JOURNAL.format(rater)
        self.path.touch()
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        self.was_cut = whole < len(content)
        if self.was_cut:
            os.truncate(self.path, whole)
        self.verdicts = read_verdicts(self.path, num_pairs)

    def append(self, pair: int, verdict: str | None) -> None:
        """Say something of a pair; None takes back what was said."""
        with open(self.path, "ab") as file:
            file.write((json.dumps({"pair": pair, "verdict": verdict}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        note(self.verdicts, pair, verdict)

    def undo(self) -> None:
        """Take back the newest verdict, if there is one."""
        if self.verdicts:
            self.append(next(reversed(self.verdicts)), None)


def read_verdicts(path: Path, num_pairs: int) -> dict[int, str]:
    """What a journal says; the beginning of a line at its end, which may just be written, is passed over.

    Raises:
        ValueError: a line is no verdict on one of the pairs.
    """
    lines, verdicts = list(lines_of(path, "labels")), dict[int, str]()
    if lines and not path.read_bytes().endswith(b"\n"):
        lines.pop()
    for where, line in lines:
        row = parsed(line, where)
        if not isinstance(row, dict) or row.get("pair") not in range(num_pairs) or row.get("verdict") not in WORDS:
            raise ValueError(f"{where} is {row!r}, no verdict on one of the {num_pairs} pairs")
        note(verdicts, row["pair"], row["verdict"])
    return verdicts


def note(verdicts: dict[int, str], pair: int, verdict: str | None) -> None:
    """Make a verdict the newest one, or with None forget the pair's."""
    verdicts.pop(pair, None)
    if verdict is not None:
        verdicts[pair] = verdict


def read_journals(folder: Path, num_pairs: int) -> dict[str, dict[int, str]]:
    """What each rater said; skipped pairs are left out."""
    before, after = JOURNAL.split("{}")
    journals = {
        path.name.removeprefix(before).removesuffix(after): read_verdicts(path, num_pairs)
        for path in sorted(folder.glob(JOURNAL.format("*")))
    }
    return {name: {n: v for n, v in verdicts.items() if v in CODES} for name, verdicts in journals.items()}


def write_preferences(folder: Path, pairs: Sequence[Pair], journals: Mapping[str, Mapping[int, str]]) -> int:
    """Write what all raters said as rows that `textgym.preferences.read_preferences` reads; returns how many."""

    def rows() -> Iterator[dict[str, object]]:
        for rater, verdicts in journals.items():
            for number, verdict in verdicts.items():
                pair = pairs[number]
                better, worse = (pair.second, pair.first) if verdict == "second" else (pair.first, pair.second)
                columns = {"prompt": pair.prompt, "chosen": better, "rejected": worse, "tie": verdict == "tie"}
                yield columns | {"rater": rater}

    write_json_lines(folder / PREFERENCES, rows())
    return sum(map(len, journals.values()))


def agreement(journals: Mapping[str, Mapping[int, str]]) -> str:
    """How far raters agree on pairs that several of them judged, in words."""
    said: dict[int, list[str]] = {}
    for verdicts in journals.values():
        for number, verdict in verdicts.items():
            said.setdefault(number, []).append(verdict)
    shared = [verdicts for verdicts in said.values() if len(verdicts) > 1]
    if not shared:
        return "agreement: no pair was judged by two raters yet"
    both = [a == b for verdicts in shared for a, b in combinations(verdicts, 2)]
    share = (
        f"{len(shared)} pairs were judged by several raters; two of them say the same in {sum(both) / len(both):.0%}"
    )
    try:
        alpha = krippendorff_alpha([[CODES[verdict] for verdict in verdicts] for verdicts in shared])
    except ValueError as error:  # nothing varies
        return f"{share}; {error}"
    return f"{share}, Krippendorff's alpha is {alpha.text('{:.2f}')}"
