"""Arithmetic expressions over given numbers, read by a grammar of their own; nothing in a text is executed.

    expression = term {("+" | "-") term}
    term = factor {("*" | "/") factor}
    factor = number | "(" expression ")"

Spaces may stand between these. The reader keeps a stack of its own, so no depth of brackets is too much for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
TOKEN = re.compile(r"[0-9]+|[^ ]")


def value_of(text: str, numbers: Sequence[int]) -> int | None:
    """The value of an expression in which each of the numbers is used at most once.

    Args:
        text: the expression.
        numbers: what it may use, integers of at least 0; one that is there twice may be used twice.

    Returns:
        the value; None if the text is no expression, uses another number, or has a division that leaves a remainder.
    """
    tokens = TOKEN.findall(text)
    if Counter(token for token in tokens if token[0] in "0123456789") - Counter(map(str, numbers)):
        return None
    values: list[int] = []
    waiting: list[str] = []  # operators and brackets that are not done yet
    operand_next = True
    for token in tokens:
        if operand_next:
            if token[0] in "0123456789":
                values.append(int(token))
                operand_next = False
            elif token == "(":
                waiting.append(token)
            else:
                return None
        elif token in PRECEDENCE:
            if not _reduce(values, waiting, PRECEDENCE[token]):
                return None
            waiting.append(token)
            operand_next = True
        elif token == ")":
            if not _reduce(values, waiting, 1) or not waiting:
                return None
            waiting.pop()
        else:
            return None
    if operand_next or not _reduce(values, waiting, 1) or waiting:
        return None
    return values[0]


def _reduce(values: list[int], waiting: list[str], least: int) -> bool:
    """Apply the operators that wait since the last bracket and bind at least so strongly; False if one cannot be."""
    while waiting and PRECEDENCE.get(waiting[-1], 0) >= least:
        operator, right, left = waiting.pop(), values.pop(), values.pop()
        if operator == "+":
            values.append(left + right)
        elif operator == "-":
            values.append(left - right)
        elif operator == "*":
            values.append(left * right)
        elif right == 0 or left % right:
            return False
        else:
            values.append(left // right)
    return True
