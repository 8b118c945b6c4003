"""ExactMatch, NumericMatch and the numbers that it reads, against hand values; references that are none."""

import time
from fractions import Fraction

import pytest

from textgym.scorers import ExactMatch, NumericMatch, ScorerError, make_scorer
from textgym.scorers.answers import numbers_in
from textgym.scorers.references import references_of
from textgym.testing import check_scorer, make_generations


def rewards(scorer, reference, *completions):
    prompts = [{"prompt": "Q: ", "reference": reference}] * len(completions)
    return scorer.evaluate(make_generations(prompts, completions)).rewards.tolist()


def test_references_are_texts_or_lists_of_texts():
    batch = make_generations([{"prompt": "a", "gold": "x"}, {"prompt": "b", "gold": ["y", ""]}], ["1", "2"])
    assert references_of(batch, "gold") == [["x"], ["y", ""]]


@pytest.mark.parametrize("value", [3, None, [], ["a", 1], {"a": "b"}], ids=repr)
@pytest.mark.parametrize("name", ["exact_match", "numeric_match", "bleu", "chrf", "rouge"])
def test_a_reference_of_another_type_is_refused(name, value):
    message = f"scorer '{name}' raised ValueError: the column 'reference' is .* for the prompt 'Q: '; it must be a text"
    with pytest.raises(ScorerError, match=message):
        rewards(make_scorer(name), value, "x")


@pytest.mark.parametrize("name", ["exact_match", "numeric_match", "bleu", "chrf", "rouge"])
def test_a_missing_column_is_named(name):
    batch = make_generations([{"prompt": "a", "references": "x"}], ["x"])
    message = f"'{name}' raised ValueError: the prompts have no column 'reference' .*did you mean 'references'"
    with pytest.raises(ScorerError, match=message):
        make_scorer(name).evaluate(batch)
    assert make_scorer({"name": name, "column": "references"}).column == "references"
    with pytest.raises(ValueError, match=f"scorer '{name}': column is 3; it must be a text"):
        make_scorer({"name": name, "column": 3})


def test_exact_match_leaves_out_white_space_around():
    assert rewards(ExactMatch(), "95", "95", " 95\n", "9 5", "095", "95.", "") == [1, 1, 0, 0, 0, 0]
    assert rewards(ExactMatch(), ["Yes", "yeah"], "Yes", "yes", "yeah", "Yes yeah") == [1, 0, 1, 0]
    assert rewards(ExactMatch(case_sensitive=False), "Straße", "STRASSE", "strase") == [1, 0]


def test_exact_match_knows_combining_marks_and_scripts():
    assert rewards(ExactMatch(), "café", "cafe\u0301", "cafe", "caf\u00e9") == [1, 0, 1]
    assert rewards(ExactMatch(), "我喜欢", "我喜欢", "我喜歡") == [1, 0]
    # folding the case makes a letter of the iota below, which stands behind the accent or before it
    assert rewards(ExactMatch(case_sensitive=False), "\u1fb4", "α\u0345\u0301", "Α\u0301\u0345", "α\u0301") == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("x² + x", []),
        ("1,234.5", ["1234.5"]),
        ("12,345,678.90.", ["12345678.9"]),
        ("1,23", ["1", "23"]),
        ("1,2345", ["1", "2345"]),
        ("-3", ["-3"]),
        ("x=-3 or −4", ["-3", "-4"]),
        ("5-3, (5)-3, 5 - 3, COVID-19", ["5", "3", "5", "3", "5", "3", "19"]),
        ("3/4, -3/4", ["3/4", "-3/4"]),
        ("1/2,3/4", ["1/2", "3/4"]),
        ("1 3/4", ["1", "3/4"]),
        ("3/0", ["3", "0"]),
        ("1/2/2024", ["1", "2", "2024"]),
        ("0.5/3 and 3/4.5", ["0.5", "3", "3", "4.5"]),
        (".5 and -.5 and 5.", ["0.5", "-0.5", "5"]),
        ("1.2.3", ["1.2", "3"]),
        ("1e-3 2E2 2em 2e3x", ["0.001", "200", "2", "2", "3"]),
        ("٣ and ３.５", ["3", "3.5"]),
        ("$1,000,000 is 50%", ["1000000", "50"]),
        ("37+58=95", ["37", "58", "95"]),
    ],
)
def test_what_a_number_is(text, numbers):
    assert numbers_in(text) == [Fraction(number) for number in numbers]


def test_numbers_that_are_too_long_to_read_match_nothing():
    assert numbers_in("9" * 1000) == [10**1000 - 1]
    assert numbers_in("9" * 1001 + " 1e1001 1e999999999999 1e-1000") == [None, None, None, Fraction(1, 10**1000)]
    assert rewards(NumericMatch(), "7", "7 or " + "9" * 5000, "9" * 5000 + " or 7") == [0, 1]


@pytest.mark.parametrize("text", ["1,", "1,111", "3/", "1e", "1/1", "-", "1.", "1e9"])
def test_long_texts_are_read_in_time_that_is_linear(text):
    started = time.process_time()
    numbers_in(text * (100_000 // len(text)))
    assert time.process_time() - started < 3


def test_the_last_number_counts():
    assert rewards(NumericMatch(), "#### 95", "It is 95.", "95 or 96", "96, no, 95", "none", "") == [1, 0, 1, 0, 0]
    assert rewards(NumericMatch(which="first"), "95", "95 or 96", "96, no, 95") == [1, 0]
    assert rewards(NumericMatch(which="only"), "95", "it is 95", "95 or 96", "") == [1, 0, 0]
    assert rewards(NumericMatch(), "it was 3, is 4", "4", "3") == [1, 0]
    assert rewards(NumericMatch(), ["0.75", "-1"], "3/4", ".750", "7.5e-1", "-1.0", "1") == [1, 1, 1, 1, 0]


def test_numbers_are_compared_exactly():
    assert rewards(NumericMatch(), "12345678901234567890", "12345678901234567891", "12345678901234567890.0") == [0, 1]
    assert rewards(NumericMatch(), "0.3", "0.30000000000000001") == [0]
    # 0.3 as a float is less than 0.3, so that 0.5 would be too far from 0.2
    assert rewards(NumericMatch(tolerance=0.3), "0.2", "0.5", "-0.1", "0.5001", "0.1") == [1, 1, 0, 1]


def test_a_reference_without_a_number_is_refused():
    for reference in ("none", "", "9" * 1001, ["1", "none"]):
        with pytest.raises(ScorerError, match="'numeric_match' .* has no number that can be read"):
            rewards(NumericMatch(), reference, "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": "best"}, r"which is 'best'; accepted are \['last', 'first', 'only'\]"),
        ({"tolerance": -1}, "tolerance is -1; it must be at least 0"),
        ({"tolerance": float("inf")}, "tolerance is inf; it must be finite"),
        ({"tolerance": "0.1"}, "tolerance is '0.1'"),
    ],
)
def test_arguments_of_numeric_match(arguments, message):
    with pytest.raises(ValueError, match=f"scorer 'numeric_match': {message}"):
        NumericMatch(**arguments)
    with pytest.raises(ValueError, match="scorer 'exact_match': case_sensitive is 1"):
        ExactMatch(case_sensitive=1)


@pytest.mark.parametrize("scorer", [ExactMatch(), NumericMatch(tolerance=0.01)], ids=lambda s: s.name)
def test_contract(scorer):
    prompts = [{"prompt": "37+58=", "reference": "95"}, {"prompt": "Q: ", "reference": ["3/4", "०.५"]}]
    completions = ["", "95", "is ०.५", "cafe\u0301 3/4", "9" * 10_000, "1,1e3/" * 500]
    check_scorer(scorer, prompts=prompts, completions=completions, pickles=True)
