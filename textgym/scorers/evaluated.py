"""Which answers may go to datasets of reasoning-gym that compute with them.

Four of them call `eval` on an answer, five `sympy.parse_expr`, which does so underneath, and one `Fraction`. A model
may write anything, so an answer goes there only if it can call nothing, and if no number in it grows so large that
the computation would not end.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable

MOST_CHARACTERS, MOST_DIGITS, HIGHEST_POWER, MOST_NESTED_CALLS = 1000, 50, 100, 2

_DISPLAYS = (ast.Expression, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp)
_SIGNS = (ast.UAdd, ast.USub)
_ARITHMETIC = (ast.Expression, ast.Constant, ast.BinOp, ast.UnaryOp, *_SIGNS, ast.Add, ast.Sub, ast.Mult, ast.Div)
_FORMULA = (*_ARITHMETIC, ast.Pow, ast.Name, ast.Load, ast.Call)
_FUNCTIONS = set(
    "exp log ln sqrt Abs sin cos tan cot sec csc asin acos atan sinh cosh tanh asinh acosh atanh erf".split()
)
_EXPONENT = re.compile(r"\d\.?[eE][-+]?\d")
_LARGE_EXPONENT = re.compile(r"[eE][-+]?[\d_]{4}")


def is_display(answer: str) -> bool:
    """Whether `eval` raises at it, or makes of it what is written there: numbers, texts, names, lists, dicts."""
    for text in (answer.lstrip(" \t"), answer.strip()):  # eval leaves out what begins a line, some callers more
        tree = _parsed(text)
        if tree is not None and not all(isinstance(node, (*_DISPLAYS, *_SIGNS)) for node in ast.walk(tree)):
            return False
    return True


def is_moderate(answer: str) -> bool:
    """Whether no number in it has an exponent of more than three digits."""
    return not _LARGE_EXPONENT.search(answer)


def is_arithmetic(answer: str) -> bool:
    """Whether it is made of numbers, + - * / and brackets."""
    tree = _parsed(answer.strip())
    return tree is not None and _is_plain(answer, tree, _ARITHMETIC)


def is_formula(answer: str) -> bool:
    """Whether it is made of numbers, names, + - * / **, brackets and elementary functions."""
    tree = _parsed(answer.strip())
    if tree is None or not _is_plain(answer, tree, _FORMULA):
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = all(isinstance(c.func, ast.Name) and c.func.id in _FUNCTIONS and not c.keywords for c in calls)
    return named and _depth(tree) <= MOST_NESTED_CALLS and _power(tree) <= HIGHEST_POWER


EVALUATED: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), is_display),
    "coin_flip": is_moderate,
    **dict.fromkeys(("countdown", "puzzle24"), is_arithmetic),
    **dict.fromkeys(("intermediate_integration", "polynomial_multiplication", "simple_integration"), is_formula),
}
"""Dataset -> which answers go to its `score_answer`."""


def _parsed(text: str) -> ast.AST | None:
    """The expression; None where `eval` raises a SyntaxError. What is too deep for the parser counts as a call."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):  # ValueError: a null byte, or a number of too many digits
        return None
    except (RecursionError, MemoryError):
        return ast.Call(ast.Name(""), [], [])


def _is_plain(answer: str, tree: ast.AST, nodes: tuple[type[ast.AST], ...]) -> bool:
    if len(answer) > MOST_CHARACTERS or _EXPONENT.search(answer):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, nodes):
            return False
        if isinstance(node, ast.Constant) and type(node.value) not in (int, float):
            return False
        if isinstance(node, ast.Constant) and abs(node.value) >= 10.0**MOST_DIGITS:  # type: ignore[arg-type, operator]
            return False
    return True


def _depth(node: ast.AST) -> int:
    """How many calls of functions stand inside each other."""
    return isinstance(node, ast.Call) + max(map(_depth, ast.iter_child_nodes(node)), default=0)


def _power(node: ast.AST) -> float:
    """The largest product of exponents that are numbers and stand over each other; infinite where one is computed."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power(node.left) * max(1.0, _exponent(node.right)) * _power(node.right)
    return max(map(_power, ast.iter_child_nodes(node)), default=1.0)


def _exponent(node: ast.AST) -> float:
    if isinstance(node, ast.UnaryOp):
        return _exponent(node.operand)
    if isinstance(node, ast.Constant):
        return float(abs(node.value))  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
        return _exponent(node.left) if isinstance(node.right.value, int) else float("inf")
    symbolic = any(isinstance(part, ast.Name) and part.id not in _FUNCTIONS for part in ast.walk(node))
    return 1.0 if symbolic else float("inf")
