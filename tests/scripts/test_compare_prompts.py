"""`scripts/compare_prompts.py`: the same questions for all entries, paired differences, and bad input."""

import json
import math
import re

import pytest

from scripts.compare_prompts import main
from scripts.experiments.prompting import Args, Asked, questions_of, report
from scripts.policies import load
from tests.conftest import SMOLLM2
from textgym.evaluation import ModelPolicy, evaluate

ENV = {"model": "tiny-tasks", "env_id": "TextGenArithmetic-v0", "device": "cpu"}
ENV |= {"env_kwargs": '{"max_prompt_tokens": 40, "level": 1}', "split": "test"}
ALONE = '{"examples": 0, "template": "{prompt}{reference}, "}'
SHOWN = '{"examples": 3, "template": "{prompt}{reference}, ", "choice": "first"}'


def test_differences_are_those_of_each_question(tmp_path, capsys):
    file = tmp_path / "new" / "result.json"
    alone, shown, again = main(Args(entries=(ALONE, SHOWN, ALONE), **ENV, questions=30, num_generations=4, json=file))
    assert alone.rewards == again.rewards != shown.rewards and len(alone.rewards) == 30
    assert {4 * reward % 1 for reward in alone.rewards + shown.rewards} == {0}
    assert 4 < alone.tokens < 6 and shown.tokens > 25
    written = json.loads(file.read_text())
    assert [entry["rewards"] for entry in written["entries"]] == [alone.rewards, shown.rewards, again.rewards]
    assert written["env_kwargs"] == {"max_prompt_tokens": 40, "level": 1, "split": "test"}
    table = capsys.readouterr().out
    assert "tiny-tasks in TextGenArithmetic-v0, 30 questions, 4 completions each" in table and "+0.000 ± 0.000" in table


def test_without_examples_it_is_the_evaluation_of_the_env():
    (alone,) = main(Args(entries=(ALONE,), **ENV, questions=100, num_generations=8))
    loaded = load(Args(**ENV), 100, {"num_generations": 1})
    reward = evaluate(ModelPolicy(loaded.env, loaded.token_model, seed=1), 800).reward
    error = math.hypot(reward.standard_error, 0.5 / 10)  # at most, of the mean over 100 questions
    assert abs(sum(alone.rewards) / 100 - reward.value) < 4 * error


def test_deterministic_asks_once():
    results = [main(Args(entries=(SHOWN,), **ENV, questions=20, deterministic=True, seed=3))[0] for _ in range(2)]
    assert results[0] == results[1] and set(results[0].rewards) <= {0.0, 1.0}


def test_the_table_by_hand():
    results = [Asked('{"examples": 0}', [0.0, 0.5, 1.0], 5.2), Asked('{"examples":4}', [0.5, 0.5, 1.0], 40.0)]
    lines = report(results, "a model", Args(questions=3)).splitlines()
    assert lines[1].startswith("a model, 3 questions, 4 completions each; mean and 95% interval over questions")
    # t(2) = 4.303; deviations 0.5 and 1 / sqrt(12), over sqrt(3)
    assert lines[-2:] == [
        '| `{"examples": 0}` | 5 | 0.500 ± 1.242 |  |',
        '| `{"examples": 4}` | 40 | 0.667 ± 0.717 | +0.167 ± 0.717 |',
    ]


def test_every_entry_has_the_questions_of_the_env():
    loaded = load(Args(**ENV), 1)
    found = [
        [row.content for row in questions_of(loaded, {"examples": k, "template": "{prompt}{reference}"}).questions]
        for k in (0, 2)
    ]
    prompts = loaded.env.unwrapped.task.prompts
    assert found[0] == found[1] == prompts.contents(range(prompts.num_prompts))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("examples=4", "--entries is not JSON"),
        ("[4]", "an entry is a JSON object of arguments of few_shot, not [4]"),
        ('{"split": "train"}', "has 'split', but the questions are the same for all entries"),
        ('{"exmples": 4}', "'few_shot' takes no argument 'exmples'; did you mean 'examples'"),
        (SHOWN.replace("3", "9").replace("first", "random"), "tokens; raise it, show fewer, or pass fit=True"),
        (ALONE, "--questions is 999, but there are 170"),
    ],
)
def test_bad_input(entry, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        main(Args(entries=(entry,), **ENV, questions=999, num_generations=1))


def test_no_entry():
    with pytest.raises(ValueError, match="at least one entry is needed"):
        main(Args(**ENV))


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2, reason="the extra smollm2-q4 is not installed")
def test_examples_teach_smollm2_what_it_was_not_told():
    numerals = {"tokenizer": "smollm2-q4", "prompts": "numerals", "level": 1, "scorer": "exact_match"}
    sizes = {"max_prompt_tokens": 128, "max_new_tokens": 8, "eos_token_ids": [2, 198]}
    common = {"model": "smollm2-q4", "env_kwargs": json.dumps(numerals | sizes), "split": "test", "device": "cpu"}
    entries = ('{"examples": 0}', '{"examples": 4}')
    alone, shown = main(Args(entries=entries, **common, questions=16, deterministic=True))
    assert sum(alone.rewards) <= 1 and sum(shown.rewards) >= 6
