"""Where in a completion its answer stands: scorers of right answers read that part alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textgym.arguments import check_argument

WAYS = {
    "all": "the whole completion as it is",
    "strip": "the whole completion without the white space around it",
    "think": 'what follows the last "</think>"',
    "####": 'what follows the last "####" on its line, as in GSM8K',
    "boxed": r"what the last \boxed{...} holds, with braces inside it in pairs",
}


@dataclass(frozen=True)
class Extraction:
    r"""Takes the answer out of a completion.

    Args:
        way: one of `WAYS`, or a regular expression with one group: what the group holds in the last match. All but
            `"all"` leave out white space around the answer.
        where: names the argument in errors.

    Raises:
        ValueError: the way is nothing of these.
    """

    way: str
    where: str = "extract"

    def __post_init__(self) -> None:
        """Check the way."""
        check_argument(self.where, self.way, str)
        if self.way in WAYS:
            return
        accepted = f"accepted are {list(WAYS)} and regular expressions with one group"
        try:
            groups = re.compile(self.way).groups
        except re.error as error:
            raise ValueError(f"{self.where} is {self.way!r}, which is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"{self.where} is {self.way!r}, which has {groups} groups; {accepted}")

    def __call__(self, completion: str) -> str | None:
        """The answer; None where there is none."""
        if self.way == "all":
            return completion
        found: str | None
        if self.way == "strip":
            found = completion
        elif self.way == "think":
            _, tag, after = completion.rpartition("</think>")
            found = after if tag else None
        elif self.way == "####":
            _, mark, after = completion.rpartition("####")
            found = after.partition("\n")[0] if mark else None
        elif self.way == "boxed":
            found = _boxed(completion)
        else:
            groups = [match[1] for match in re.finditer(self.way, completion)]
            found = groups[-1] if groups else None
        return None if found is None else found.strip()


def _boxed(text: str) -> str | None:
    _, command, after = text.rpartition(r"\boxed{")
    depth = 1
    for end, character in enumerate(after if command else ""):
        depth += (character == "{") - (character == "}")
        if not depth:
            return after[:end]
    return None
