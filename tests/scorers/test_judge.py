"""The judge against real chat endpoints: what it is asked, how its answer is read, and that no verdict is made up."""

import pytest

from tests.helpers.endpoints import chat, serve
from textgym.scorers import Judge, ScorerError, make_scorer
from textgym.testing import check_scorer, make_generations

BATCH = make_generations(
    [{"prompt": "2+2=", "reference": ["4", "four"]}, {"prompt": "{x}=", "reference": "8"}], ["4", "{prompt}"]
)


def verdicts(answer, batch=BATCH, **kwargs):
    with serve(answer) as served:
        scorer = Judge(served.url, "small", **{"backoff": 0.001, "concurrency": 1, **kwargs})
        return scorer.evaluate(batch).rewards.tolist(), served.requests


def test_what_is_asked():
    values, requests = verdicts(
        lambda body, number: chat(f"Score: {number + 1}"),
        rubric='Is {completion} right for {prompt}? Known: {reference}. Answer as {"score": 3}.',
        scale=[1, 5],
        parameters={"max_tokens": 9},
    )
    assert values == [0.0, 0.25]
    message = 'Is 4 right for 2+2=? Known: 4\nfour. Answer as {"score": 3}.'
    common = {"model": "small", "temperature": 0, "seed": 0, "max_tokens": 9}
    assert requests[0] == {"messages": [{"role": "user", "content": message}], **common}
    assert requests[1]["messages"][0]["content"].startswith("Is {prompt} right for {x}=? Known: 8.")


@pytest.mark.parametrize(
    ("text", "kwargs", "value"),
    [
        ("It is good.\nScore: 10", {}, 1.0),
        ("**Score:** 5.5/10", {}, 0.5),
        ("Score: 1 at first, but then: score: 10", {}, 1.0),
        ("Score: -1", {"scale": [-1, 1]}, 0.0),
        ("I say 4 of 5", {"pattern": r"(\d) of 5", "scale": [0, 5]}, 0.8),
        ('```json\n{"why": "{}", "points": 3}\n```', {"key": "points", "scale": [0, 4]}, 0.75),
        ('{"points": 1} no: {"points": 2.0}', {"key": "points", "scale": [0, 4]}, 0.5),
    ],
)
def test_how_an_answer_is_read(text, kwargs, value):
    values, _ = verdicts(lambda body, number: chat(text), **kwargs)
    assert values == [value] * 2


UNREADABLE = [
    ("I would rather not say.", {}, "nothing in the text matches"),
    ("Score: 11", {}, "the verdict 11 is not on the scale from 1 to 10"),
    ("Score: 0", {}, "the verdict 0 is not on the scale"),
    ("nan", {"pattern": "(nan)"}, "the verdict nan is not on the scale"),
    ("good", {"pattern": "(good)"}, "could not convert string to float"),
    ('{"points": "3"}', {"key": "points"}, "no JSON object in the text has a number under 'points'"),
    ('{"points": true}', {"key": "points"}, "no JSON object in the text has a number under 'points'"),
    ('{"outer": {"points": 3}}', {"key": "points"}, "no JSON object in the text has a number under 'points'"),
    ('{"points": 3', {"key": "points"}, "no JSON object in the text has a number under 'points'"),
    (None, {}, "the answer is no chat completion with a text"),
]


@pytest.mark.parametrize(("text", "kwargs", "problem"), UNREADABLE)
def test_an_answer_that_cannot_be_read_is_asked_for_again_and_then_an_error(text, kwargs, problem):
    with pytest.raises(
        ScorerError, match=f"gave no reward for row 0 in 3 attempts; the last one: status 200, but {problem}"
    ):
        verdicts(lambda body, number: chat(text), retries=2, **kwargs)
    values, requests = verdicts(
        lambda body, number: chat(text if number == 0 else "Score: 10"), pattern=r"Score: (\d+)"
    )
    assert values == [1.0, 1.0] and [body["seed"] for body in requests] == [0, 1, 0]


def test_only_an_answer_changes_the_seed():
    values, requests = verdicts(lambda body, number: (503, {}, b"") if number == 0 else chat("Score: 10"))
    assert values == [1.0, 1.0] and [body["seed"] for body in requests] == [0, 0, 0]
    _, requests = verdicts(lambda body, number: chat("Score: 1"), parameters={"seed": None, "temperature": None})
    assert not {"seed", "temperature"} & requests[0].keys()


def test_a_cache_keeps_verdicts():
    with serve(lambda body, number: chat("Score: 10")) as served:
        scorer = make_scorer({"name": "judge", "url": served.url, "model": "small", "cache_size": 10})
        for _ in range(2):
            assert scorer.evaluate(BATCH).rewards.tolist() == [1.0, 1.0]
    assert len(served.requests) == 2


def test_contract():
    def answer(body, number):
        return chat(f"Score: {1 + len(body['messages'][0]['content']) % 10}")

    with serve(answer) as served:
        check_scorer(Judge(served.url, "small"), pickles=True)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"url": "localhost/v1"}, "url is 'localhost/v1'; it must be a URL"),
        ({"model": None}, "model is None; it must be a text"),
        ({"rubric": "Rate it"}, "the rubric has no place {completion}, so every text would get one reward"),
        ({"rubric": "{completion} {answer}"}, "nothing fills {answer} in the rubric"),
        ({"pattern": "["}, "pattern .* is no regular expression"),
        ({"pattern": r"\d"}, "has 0 groups; it must have one"),
        ({"pattern": r"(\d)", "key": "score"}, "reads by a pattern or by a key, not by both"),
        ({"scale": [1]}, "it must be two numbers"),
        ({"scale": [2, 2]}, "the first is below the second"),
        ({"scale": [0, float("inf")]}, "both are finite"),
        ({"parameters": 3}, "parameters is 3; it must be"),
    ],
)
def test_arguments_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=f"scorer 'judge'.*{message}"):
        Judge(**{"url": "http://localhost/", "model": "small", **kwargs})


def test_prompts_without_a_reference():
    with pytest.raises(ScorerError, match="the prompts have no column 'reference'"):
        Judge("http://localhost/", "small", rubric="{completion} {reference}").evaluate(make_generations(["a"], ["b"]))
