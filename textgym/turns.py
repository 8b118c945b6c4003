"""Partners: who speaks between the turns of the policy, where an episode has several.

A turn of the policy ends with one of the env's `eot_token_ids`. Then the partner answers, in the same step, and its
tokens stand in the row like the policy's, but are no actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from textgym.importing import import_string


class Partner(Protocol):
    """What answers the policy. It must be a pure function: then a seed reproduces its episode."""

    def __call__(self, columns: Mapping[str, Any], turns: Sequence[str]) -> str | None:
        """The answer to the last turn.

        Args:
            columns: of the prompt, as the prompt source gave them; the policy sees none of them.
            turns: the texts so far, the policy's and the partner's by turns, the policy's first and last. The token
                that ended a turn is left out.

        Returns:
            a text, which goes into the row as the tokenizer encodes it; None where the episode is over.
        """


def make_partner(spec: Any) -> Partner | None:
    """A partner from the argument of an env: a function, an import string `"module:function"`, or None for none.

    Raises:
        ValueError: it is something else.
    """
    partner = import_string(spec, what="partner") if isinstance(spec, str) else spec
    if partner is not None and not callable(partner):
        raise ValueError(f"partner is {spec!r}; it must be a function, an import string 'module:function', or None")
    return partner
