"""The scorer of reasoning-gym: what it pays, that it executes nothing, and all datasets one by one."""

import copy
import inspect
import os
import pickle
import re
import sys
import time

import pytest

from textgym.prompts import load_prompts
from textgym.scorers import ReasoningGym, ScorerError, make_scorer
from textgym.scorers.evaluated import EVALUATED, is_arithmetic, is_display, is_formula, is_moderate
from textgym.testing import check_scorer, make_generations

factory = pytest.importorskip("reasoning_gym").factory
DATASETS = sorted(set(factory.DATASETS) - {"composite"})
PAYS_FOR_ANYTHING = {"game_of_life_halting"}
"""It compares truth values of texts, and "False" is a text, so it is true."""
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


def rows(dataset, **arguments):
    prompts = load_prompts({"name": "reasoning_gym", "dataset": dataset, **arguments})
    return [{"prompt": prompt.content, **prompt.columns} for prompt in prompts]


def value(dataset, completion, scorer="reasoning_gym", **arguments):
    row = rows(dataset, size=1, **arguments)[0]
    generations = make_generations([row], [completion.replace("REFERENCE", row["reference"] or "")])
    return make_scorer(scorer).evaluate(generations).rewards[0]


@pytest.mark.parametrize(
    ("completion", "arguments", "want"),
    [
        ("REFERENCE", {}, 1.0),
        (" REFERENCE\n", {}, 1.0),
        (" REFERENCE\n", {"extract": "all"}, 3 / 5),
        ("The answer is REFERENCE", {}, 3 / 17),
        ("The answer is REFERENCE", {"binary": True}, 0.0),
        ("The answer is REFERENCE", {"extract": "is (.*)", "binary": True}, 1.0),
        ("<think>?</think>REFERENCE", {"extract": "think"}, 1.0),
        (r"\boxed{REFERENCE}", {"extract": "boxed"}, 1.0),
        ("REFERENCE", {"extract": "boxed"}, 0.0),
        ("", {}, 0.0),
    ],
)
def test_what_an_answer_of_three_digits_earns(completion, arguments, want):
    assert value("leg_counting", completion, {"name": "reasoning_gym", **arguments}) == pytest.approx(want)


def test_parts_that_are_right_earn_a_part():
    words = rows("word_sorting", size=1)[0]["reference"].count(",") + 1
    assert value("word_sorting", "The answer is REFERENCE") == (words - 1) / words  # all but the first
    assert value("word_sorting", "The answer is REFERENCE", {"name": "reasoning_gym", "binary": True}) == 0.0


def test_an_answer_that_cannot_be_read_earns_nothing():
    with pytest.raises(ValueError):
        factory.create_dataset("prime_factorization", seed=0).score_answer("x", {"answer": "2 × 3"})
    assert value("prime_factorization", "two times three") == 0.0
    assert value("prime_factorization", "REFERENCE") == 1.0


def test_the_config_of_a_row_counts():
    """A near answer earns more where the times that are asked for lie further apart."""
    near = [value("time_intervals", "1 day", task_types=["date"], max_date_difference_days=d) for d in (10, 100)]
    assert near[0] < near[1]


def test_it_is_a_scorer():
    some = rows("leg_counting", size=3) + rows("gcd", size=2)
    right = [row["reference"] for row in some]
    check_scorer(ReasoningGym(binary=True), prompts=some, completions=[*right[:4], ""], pickles=True)
    check_scorer({"name": "reasoning_gym", "extract": r"(\d+)"}, prompts=some, completions=[*right[:3], "?", "١"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"binary": 1}, "scorer 'reasoning_gym': binary is 1"),
        ({"extract": "box"}, "scorer 'reasoning_gym': extract is"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReasoningGym(**arguments)


@pytest.mark.parametrize("prompt", ["2+2=", {"prompt": "2+2=", "reasoning_gym": "4"}])
def test_prompts_of_another_source(prompt):
    with pytest.raises(ScorerError, match="bring no entries of reasoning-gym in a column 'reasoning_gym'; take them"):
        ReasoningGym().evaluate(make_generations([prompt], ["4"]))


CALLS = [
    "__import__('os').environ.__setitem__('EXECUTED', 'yes')",
    " [__import__('os').environ.__setitem__('EXECUTED', 'yes')]",
    "\t\n__import__('os').environ.__setitem__('EXECUTED', 'yes')!",
    "(lambda: __import__('os').environ.__setitem__('EXECUTED', 'yes'))()",
    "x.subs(__import__('os').environ.__setitem__('EXECUTED', 'yes'))",
    "9**9**9**9",
    "[0] * 10**12",
    "int('9' * 10**9)",
    "100000000!",
    "2**(999*999*999*999)",
    "1/1e-999999999",
    "1e999999999",
    "exp(exp(exp(99)))",
    "f'{1:999999999999}'",
    "[" * 900,
    "(" * 90 + ")" * 90,
]


@pytest.mark.parametrize("dataset", EVALUATED)
def test_no_answer_is_executed_and_none_takes_long(dataset):
    row, scorer = rows(dataset, size=1)[0], ReasoningGym()
    began = time.perf_counter()
    rewards = scorer.evaluate(make_generations([row] * len(CALLS), CALLS)).rewards
    assert "EXECUTED" not in os.environ and (rewards <= 0.01).all()
    assert time.perf_counter() - began < 10
    assert scorer.evaluate(make_generations([row], [row["reference"]])).rewards[0] == 1.0


def test_what_may_be_computed_with():
    assert all(map(is_display, ["[[0, 1], [1, 0]]", "['a', 'b']", "0 1\n1 0", "_ Q\nQ _", "AB", "-1", ""]))
    assert not any(map(is_display, ["f()", " f()", "\tf()", "\n f()", "[f()]", "a.b", "[0] * 9", "f'{a}'"]))
    assert all(map(is_arithmetic, ["1 + 2 * (3 - 4) / 5", "-1", "2.5*2"]))
    assert not any(
        map(is_arithmetic, ["2**2", "x", "exp(1)", "1e5", "'a'", "1 if 1 else 2", "", "9" * 51, "1+" * 501 + "1"])
    )
    assert all(
        map(is_formula, ["-3*x**2/2 + C", "sin(x)**2*exp(-x)", "(x**2 + 1)**3", "x**(1/2)", "2**x", "log(Abs(x))"])
    )
    refused = [
        "2**2**9**9",
        "((x**9)**9)**9",
        "2**(9*9)",
        "2**101",
        "S('x')",
        "sin(x, evaluate=f())",
        "exp(exp(exp(x)))",
    ]
    assert not any(map(is_formula, refused))
    assert is_moderate("3/8") and is_moderate("1e-3") and not is_moderate("1e9999")


def test_every_dataset_that_evaluates_answers_is_known():
    """Those beside `EVALUATED` evaluate only what they made themselves; a new version may bring others."""
    makes = {
        "basic_arithmetic",
        "bitwise_arithmetic",
        "codeio",
        "number_sorting",
        "propositional_logic",
    }
    pattern = re.compile(r"\b(eval|exec|parse_expr|sympify|Fraction)\(")
    modules = {name: inspect.getsource(sys.modules[factory.DATASETS[name][0].__module__]) for name in DATASETS}
    using = {name for name, text in modules.items() if pattern.search(text)}
    assert using == makes | set(EVALUATED)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_dataset(dataset):
    """Its right answer earns 1 and another one next to nothing; rows can be copied and pickled."""
    two = rows(dataset, size=2)
    assert pickle.loads(pickle.dumps(two)) == copy.deepcopy(two) == two
    scorer, binary = ReasoningGym(), ReasoningGym(binary=True)
    wrong = make_generations(two, ["qqq zzz"] * 2)
    if dataset in PAYS_FOR_ANYTHING:
        assert (binary.evaluate(wrong).rewards == [row["reference"] != "True" or 1 for row in two]).all()
    else:
        assert (scorer.evaluate(wrong).rewards <= 0.25).all() and not binary.evaluate(wrong).rewards.any()
    assert (dataset in WITHOUT_ANSWER) == all(row["reference"] is None for row in two)
    if dataset not in WITHOUT_ANSWER:
        right = make_generations(two, [row["reference"] for row in two])
        assert (scorer.evaluate(right).rewards == 1).all() and (binary.evaluate(right).rewards == 1).all()
