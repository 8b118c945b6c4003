"""Conformance checks that users run on their own scorers and envs, in their own tests.

`check_scorer` and `check_env` raise an `AssertionError` that names what is wrong, and return nothing if all is well.
`make_generations` builds what a scorer is given, from texts.
"""

from textgym.testing.envs import check_env
from textgym.testing.generations import make_generations
from textgym.testing.scorers import check_scorer

__all__ = ["check_env", "check_scorer", "make_generations"]
