"""Functions as scorers: called by keyword, as TRL does."""

import asyncio
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import textgym
from textgym.scorers import FunctionScorer, ScorerError
from textgym.testing import make_generations

BATCH = make_generations(
    [{"prompt": "2+2=", "answer": "4", "level": 1}, {"prompt": "3+5=", "answer": "8", "level": 2}], ["4", "seven"]
)
EOS = 256


def rewards(function, batch=BATCH, **kwargs):
    return FunctionScorer(function, **kwargs).evaluate(batch).rewards.tolist()


def test_everything_is_passed_by_keyword():
    def spy(**kwargs):
        seen.update(kwargs)
        return [0.0, 0.0]

    seen = {}
    rewards(spy)
    of_trainer = {name: seen.pop(name) for name in ("trainer_state", "log_metric", "log_extra")}
    assert of_trainer.pop("trainer_state") is None and all(map(callable, of_trainer.values()))
    assert seen == {
        "prompts": ["2+2=", "3+5="],
        "completions": ["4", "seven"],
        "completion_ids": [[*b"4", EOS], [*b"seven", EOS]],
        "answer": ["4", "8"],
        "level": [1, 2],
    }


def test_a_function_without_kwargs_gets_what_it_names():
    def accuracy(completions, answer):
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    assert rewards(accuracy) == [1.0, 0.0]


def test_parameters_with_defaults_need_no_column():
    def brevity(completion_ids, *, scale=2.0, trainer_state=None):
        assert trainer_state is None
        return [-scale * len(ids) for ids in completion_ids]

    assert rewards(brevity) == [-4.0, -12.0]


def test_conversational():
    def spy(prompts, completions):
        seen.append((prompts, completions))
        return [0.0] * len(prompts)

    seen = []
    rewards(spy, conversational=True)
    assert seen == [
        (
            [[{"role": "user", "content": "2+2="}], [{"role": "user", "content": "3+5="}]],
            [[{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "seven"}]],
        )
    ]


@pytest.mark.parametrize(
    "convert", [list, np.array, torch.tensor, lambda x: torch.tensor(x).half()], ids=["list", "numpy", "torch", "half"]
)
def test_return_types(convert):
    assert rewards(lambda completions: convert([1.0, 0.5])) == [1.0, 0.5]


async def slow(completions):
    await asyncio.sleep(0)
    return [float(len(c)) for c in completions]


class Judge:
    async def __call__(self, completions, **kwargs):
        return await slow(completions)


@pytest.mark.parametrize("function", [slow, Judge(), functools.partial(slow)], ids=["function", "object", "partial"])
def test_async_functions_are_awaited(function):
    assert rewards(function) == [1.0, 5.0]


def test_names():
    assert FunctionScorer(slow).name == "slow"
    assert FunctionScorer(functools.partial(functools.partial(slow))).name == "slow"
    assert FunctionScorer(Judge()).name == "Judge"
    assert FunctionScorer(slow, name="mine").name == "mine"


def test_a_function_that_fits_nothing():
    with pytest.raises(ValueError, match=r"scorer 'f' takes \['text'\], but none of \['prompts', 'completions', "):

        def f(text):
            return text

        FunctionScorer(f)


def test_a_positional_only_parameter():
    def f(completions, /):
        return completions

    with pytest.raises(ValueError, match="scorer 'f' has the positional-only parameter 'completions'"):
        FunctionScorer(f)


def test_a_missing_column_names_those_there_are():
    def accuracy(completions, answers):
        return [0.0 for _ in zip(completions, answers, strict=True)]

    message = (
        r"'accuracy' requires the argument 'answers', .*\(columns: \['answer', 'level'\]\); did you mean 'answer'\?"
    )
    with pytest.raises(ScorerError, match=message):
        rewards(accuracy)


def test_no_callable():
    with pytest.raises(ValueError, match="must be callable, not 3"):
        FunctionScorer(3)


def test_an_error_inside_the_function_keeps_its_cause():
    def broken(completions):
        return 1 / 0

    with pytest.raises(ScorerError, match="scorer 'broken' raised ZeroDivisionError") as caught:
        rewards(broken)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert str(caught.value).endswith(f" (test_function_scorer.py, line {broken.__code__.co_firstlineno + 1})")


def test_a_file_whose_name_begins_like_the_packages_is_the_users_own():
    file = str(Path(textgym.__file__).parent) + "_rewards.py"
    names = {}
    exec(compile("def wrong(completions):\n    return 1 / 0", file, "exec"), names)
    with pytest.raises(ScorerError, match=r"ZeroDivisionError: division by zero \(textgym_rewards.py, line 2\)$"):
        rewards(names["wrong"])


def test_an_error_beneath_the_function_is_told_by_the_functions_own_line():
    def parsed(completions):
        return [json.loads(text) for text in completions]

    with pytest.raises(ScorerError, match="'parsed' raised JSONDecodeError: ") as caught:
        rewards(parsed)
    assert str(caught.value).endswith(f" (test_function_scorer.py, line {parsed.__code__.co_firstlineno + 1})")
