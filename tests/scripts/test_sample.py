"""`scripts/sample.py`: texts, rewards, pinned prompts."""

import json
import re

import pytest

from scripts.sample import Args, main, samples
from tests.scripts.test_evaluate import save_model

ENV = {"env_id": "TextGenChars-v0", "device": "cpu", "env_kwargs": '{"max_prompt_tokens": 4}'}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), seed=0)


def test_rewards_are_the_scorers(model):
    found = list(samples(Args(model=model, n=32, **ENV)))
    assert len(found) == 32 and {sample.prompt for sample in found} == {""}
    assert len({sample.reward for sample in found}) > 2
    for sample in found:
        assert re.fullmatch("[abcd]{0,8}", sample.completion)
        assert sample.reward == pytest.approx(2 * sample.completion.count("ab") / max(len(sample.completion), 1))


def test_prompts_are_pinned_in_order(model):
    found = list(samples(Args(model=model, n=2, prompt=["abc", "d"], **ENV)))
    assert [sample.prompt for sample in found] == ["abc", "abc", "d", "d"]


def test_deterministic_gives_one_text_per_prompt(model):
    def texts(seed, deterministic):
        return {s.completion for s in samples(Args(model=model, n=8, seed=seed, deterministic=deterministic, **ENV))}

    assert len(texts(0, True)) == 1 and texts(0, True) == texts(1, True)
    assert len(texts(0, False)) > 1 and texts(0, False) == texts(0, False) != texts(1, False)


def test_output_for_people_and_machines(model, capsys):
    main(Args(model=model, n=3, prompt=["ab"], **ENV))
    people = capsys.readouterr().out.splitlines()
    main(Args(model=model, n=3, prompt=["ab"], jsonl=True, **ENV))
    machines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert people == [f"{s['reward']:+.3f} [{s['prompt']}]{s['completion']}" for s in machines]
    assert len(people) == 3


def test_a_scorer_by_name(model):
    for sample in samples(Args(model=model, n=4, scorer='{"name": "length", "target": 100}', **ENV)):
        tokens = len(sample.completion) + (len(sample.completion) < 8)  # EOS
        assert sample.reward == pytest.approx(tokens / 100 - 1)


def test_n_must_be_positive(model):
    with pytest.raises(ValueError, match="--n is 0"):
        next(samples(Args(model=model, n=0, **ENV)))
