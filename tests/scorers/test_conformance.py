"""Every registered scorer keeps the contract that `textgym.testing.check_scorer` checks."""

import pytest

from scripts.benchmarks.scorers import COLUMNS, INSTEAD, SPECS
from textgym.scorers import make_scorer
from textgym.scorers.registry import SCORERS, scorer_class
from textgym.testing import check_scorer
from textgym.testing.scorers import PROMPTS


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_keeps_the_contract(name):
    case = SPECS[name]
    scorer = make_scorer(case.scorer())
    assert type(scorer) is scorer_class(name)
    check_scorer(scorer, prompts=case.prompts(PROMPTS), pickles=True)


def test_what_stands_in_for_an_example_belongs_to_a_scorer():
    assert {*INSTEAD, *COLUMNS} <= set(SCORERS)
