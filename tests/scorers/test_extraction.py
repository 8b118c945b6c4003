"""Where in a completion its answer stands."""

import pickle

import pytest

from textgym.scorers.extraction import Extraction


@pytest.mark.parametrize(
    ("way", "completion", "answer"),
    [
        ("all", " 42 \n", " 42 \n"),
        ("strip", " 42 \n", "42"),
        ("strip", "", ""),
        ("think", "<think>6 * 7</think>\n42 ", "42"),
        ("think", "a</think>b</think>c", "c"),
        ("think", "42", None),
        ("####", "6 * 7 = 42\n#### 42\nso", "42"),
        ("####", "#### 1\n#### 2", "2"),
        ("####", "42", None),
        ("boxed", r"so \boxed{1} or \boxed{ \frac{1}{2} } it is", r"\frac{1}{2}"),
        ("boxed", r"\boxed{}", ""),
        ("boxed", r"\boxed{\frac{1}{2}", None),
        ("boxed", "{42}", None),
        (r"answer is (\d+)", "The answer is 1. The answer is 23.", "23"),
        (r"answer is(.*)\.", "The answer is 1 .", "1"),
        (r"answer is (\d+)", "42", None),
        (r"(\d+)|none", "none", None),
    ],
)
def test_the_answer(way, completion, answer):
    assert Extraction(way)(completion) == answer
    assert pickle.loads(pickle.dumps(Extraction(way)))(completion) == answer


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("box", "extract is 'box', which has 0 groups; accepted are .'all', 'strip', 'think', '####', 'boxed'. and"),
        ("(a)(b)", "has 2 groups"),
        ("(a", "which is no regular expression: missing"),
        (3, "extract is 3; it must be a text"),
    ],
)
def test_ways_that_are_none(way, message):
    with pytest.raises(ValueError, match=message):
        Extraction(way)
