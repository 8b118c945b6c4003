"""What the bridge gives TRL, beside hand runs. TRL itself is in in_trl.py."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from tests.helpers.episodes import write_episode
from textgym.bridges.trl import TRLTask
from textgym.tokenizers import character_tokenizer

HERE = "tests.bridges.test_trl"
FEW = {"max_new_tokens": 6}
CASES = {
    "sentiment": ("TextGen-v0", {}),
    "characters": ("TextGenChars-v0", {}),
    "columns": ("TextGenArithmetic-v0", {}),
    "columns of lists": ("TextGenCountdown-v0", {}),
    "per token": ("TextGen-v0", FEW | {"scorer": {"name": "log_prob", "model": "tiny"}}),
    "empty prompts": ("TextGen-v0", FEW | {"prompts": ["", "The film"]}),
    "cut prompts": ("TextGen-v0", FEW | {"max_prompt_tokens": 2, "truncate_prompts": True}),
    "sampled prompts": ("TextGen-v0", FEW | {"prompts": f"{HERE}:sampled"}),
    "masks": ("TextGen-v0", FEW | {"min_new_tokens": 3, "banned_tokens": [7]}),
    "several components": ("TextGen-v0", FEW | {"scorer": f"{HERE}:told"}),
}


def sampled(rng):
    return {"prompt": f"Film number {rng.integers(50)}", "year": int(rng.integers(1900, 2000))}


def told(completions, log_metric, log_extra, trainer_state):
    lengths = [len(text) for text in completions]
    log_metric("characters", sum(lengths))
    log_extra("length", lengths)
    return lengths


@pytest.mark.parametrize("case", CASES)
def test_rewards_are_those_of_the_env(case, rng):
    env_id, kwargs = CASES[case]
    bridge, env = TRLTask(env_id, **kwargs), gym.make(env_id, **kwargs)
    rows = bridge.dataset(size=200 if case != "per token" else 40, seed=3)[:]  # lists by column
    tokens = bridge.processing_class(rows["prompt"])["input_ids"]  # as TRL tokenizes them
    episodes = [
        write_episode(env, rng, begun=answer(env, rows, i, rng), options={"prompt_ids": ids})
        for i, ids in enumerate(tokens)
    ]
    columns = {name: rows[name] for name in rows if name != "prompt"} | {"of_others": [0] * len(tokens)}
    completion_ids = [episode.tokens for episode in episodes]
    completions = [env.unwrapped.tokenizer.decode(ids) for ids in completion_ids]
    given = bridge.reward_func(
        prompts=rows["prompt"], completions=completions, completion_ids=completion_ids, trainer_state=None, **columns
    )
    near = 1e-5 if case == "per token" else 0  # a model computes each row alone otherwise than in a batch
    assert np.allclose(given, [episode.total for episode in episodes], rtol=near, atol=0)
    assert len({*given}) > 1 and bridge.reward_func.__name__ == bridge.task.scorer.name


def answer(env, rows, i, rng):
    """The tokens of a right answer, of every other row where there is one."""
    if "reference" not in rows or rng.random() < 0.5:
        return ()
    reference = rows["reference"][i]
    tokens = env.unwrapped.encode(reference if isinstance(reference, str) else reference[0])
    return [*tokens, 44][: env.unwrapped.mdp.max_new_tokens]


def test_the_splits_are_the_envs_and_have_no_prompt_in_common():
    bridge = TRLTask("TextGenArithmetic-v0", level=1)
    train, test = (bridge.dataset(split) for split in ("train", "test"))
    assert not {*train["prompt"]} & {*test["prompt"]}
    table = gym.make("TextGenArithmetic-v0", level=1, split="test").unwrapped.task.prompts
    assert list(test["prompt"]) == table.texts(np.arange(table.num_prompts))
    reward = bridge.reward_func(  # one function pays for both
        prompts=test["prompt"][:1],
        completions=[""],
        completion_ids=[[*map(int, test["reference"][0]), 44]],
        reference=test["reference"][:1],
    )
    assert reward == [1.0]


def test_columns_of_any_kind_come_back_as_they_were():
    pytest.importorskip("reasoning_gym")
    bridge = TRLTask(
        "TextGen-v0",
        tokenizer="bytes",
        prompts="reasoning_gym:leg_counting",
        scorer="reasoning_gym",
        max_prompt_tokens=600,
    )
    rows, table = bridge.dataset()[:], bridge.task.prompts
    columns = {name: rows[name] for name in ("reference", "reasoning_gym")}
    ids = bridge.prompt_ids(rows["prompt"], columns)
    assert ids.tolist() == list(range(table.num_prompts))


def test_the_function_of_the_env_is_told_of_trl():
    """Its metrics and extra columns go where TRL keeps them."""
    bridge, metrics, extras, states = TRLTask("TextGenChars-v0", scorer=f"{HERE}:told"), {}, {}, object()
    bridge.reward_func(
        prompts=["<eos>"] * 2,
        completions=["ab", "c"],
        completion_ids=[[0, 1, 4], [2, 4]],
        trainer_state=states,
        log_metric=metrics.__setitem__,
        log_extra=extras.__setitem__,
    )
    assert metrics == {"characters": 3} and extras == {"length": [2, 1]}


def test_components_are_logged_where_there_are_several():
    scorer = {"name": "weighted_sum", "scorers": ["sentiment", {"name": "length", "target": 3}], "weights": [1, 0.5]}
    bridge, metrics = TRLTask("TextGen-v0", scorer=scorer), {}
    bridge.reward_func(prompts=["The film"], completions=[""], completion_ids=[[5, 2]], log_metric=metrics.__setitem__)
    assert set(metrics) == {"components/sentiment/mean", "components/length/mean"}


def test_the_settings_are_the_mdps():
    assert TRLTask("TextGenChars-v0", min_new_tokens=2, banned_tokens=[1]).config == {
        "max_completion_length": 8,
        "generation_kwargs": {"eos_token_id": [4], "suppress_tokens": [1], "min_new_tokens": 2},
    }


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([0, 1], "ends neither"),
        ([4], "forbidden"),
        ([0, 1, 4, 4], "token 2, 4, ends the text before"),
        ([0, 3, 4], "token 1, 3, is forbidden"),
        ([0] * 9, "has 9 tokens"),
        ([], "has 0 tokens"),
        ([0, 5, 4], "run from 0 to 4"),
        ([0, -1, 4], "run from 0 to 4"),
    ],
)
def test_what_is_no_episode_of_the_env_is_refused(tokens, problem):
    bridge = TRLTask("TextGenChars-v0", min_new_tokens=1, banned_tokens=[3])
    with pytest.raises(ValueError, match=f"completion 1, .*{problem}"):
        bridge.reward_func(prompts=["<eos>"] * 2, completions=[""] * 2, completion_ids=[[0, 4], tokens])


def test_rows_of_other_data_are_refused():
    bridge = TRLTask("TextGenArithmetic-v0")
    with pytest.raises(ValueError, match="no column 'reference'"):
        bridge.reward_func(prompts=["1+1="], completions=["2"], completion_ids=[[2, 44]])
    chat = [{"role": "user", "content": "1+1="}]
    with pytest.raises(ValueError, match="is a chat"):
        bridge.reward_func(prompts=[chat], completions=["2"], completion_ids=[[2, 44]], reference=["2"])
    with pytest.raises(ValueError, match="size=..."):
        TRLTask("TextGen-v0", prompts=f"{HERE}:sampled").dataset()


def test_a_tokenizer_that_adds_tokens_of_its_own_is_refused():
    from tokenizers.processors import TemplateProcessing

    backend = character_tokenizer("ab").backend
    backend.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", bos_token="<eos>")
    bridge = TRLTask("TextGen-v0", tokenizer=tokenizer, prompts=["a"], scorer={"name": "regex", "pattern": "a"})
    with pytest.raises(ValueError, match=r"reads \[2, 0\] in the prompt 'a', and the env \[0\]"):
        bridge.dataset()


def test_ids_of_other_envs_are_refused():
    with pytest.raises(ValueError, match="CartPole"):
        TRLTask("CartPole-v1")


def test_an_environment_pays_for_the_submitted_text(rng):
    bridge, env = TRLTask("TextGenArithmetic-v0"), gym.make("TextGenArithmetic-v0").unwrapped
    environment = bridge.environment_factory(reward_without_text=-1.0)()
    for row in bridge.dataset(size=300, conversational=True):
        text = row["reference"] if rng.random() < 0.5 else str(rng.integers(100))
        env.reset(options={"prompt": row["prompt"][0]["content"]})
        for token in [*env.encode(text), 44][:4]:
            _, reward, *_ = env.step(token)
        assert environment.reset(**row) is None
        assert environment.get_reward() == -1.0
        assert environment.submit(text) == "received" and environment.get_reward() == reward
        with pytest.raises(ValueError, match="already"):
            environment.submit(text)


@pytest.mark.parametrize("row", [{"prompt": [{"role": "user", "content": ""}]}, {"prompt": "1+1=", "reference": "2"}])
def test_an_environment_takes_no_row_of_other_data(row):
    """Such as those that TRL makes up where it is given no data set: each rollout of a group would draw its own."""
    with pytest.raises(ValueError, match="conversational=True"):
        TRLTask("TextGenArithmetic-v0").environment_factory()().reset(**row)


def test_without_datasets_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install \"textgym\[trl\]\""):
        TRLTask("TextGenChars-v0").dataset()
