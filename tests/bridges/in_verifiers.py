# /// script
# dependencies = ["verifiers==0.4.0"]
# ///
"""Replies scored by verifiers beside hand runs; run by test_in_environments.py, where verifiers is installed."""

import asyncio
import json

import gymnasium as gym
import pytest
import verifiers.v1 as vf
from verifiers.v1.utils.loaders import taskset_class

from tests.helpers.docs import blocks, page, section
from tests.helpers.episodes import write_episode
from textgym.bridges.verifiers import TextGymConfig, TextGymTaskset

CASES = {
    "sentiment": ("TextGen-v0", {"max_new_tokens": 6}),
    "columns": ("TextGenArithmetic-v0", {"level": 1}),
    "lists in columns": ("TextGenCountdown-v0", {}),
    "components": (
        "TextGen-v0",
        {
            "max_new_tokens": 6,
            "scorer": {
                "name": "weighted_sum",
                "scorers": ["sentiment", {"name": "length", "target": 3}],
                "weights": [1, 0.5],
            },
        },
    ),
}


def replied(task, *texts):
    """What verifiers records of a conversation, and pays for it."""
    nodes = [vf.MessageNode(message={"role": "user", "content": "go"})]
    for text in texts:
        message = {"role": "assistant", "content": text}
        nodes.append(vf.MessageNode(message=message, sampled=True, parent=len(nodes) - 1))
    recorded = vf.TraceTask(type=type(task).__name__, data=task.data)
    trace = vf.Trace(task=recorded, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes)
    asyncio.run(task.score(trace))
    return trace


@pytest.mark.parametrize("case", CASES)
def test_rewards_and_metrics_are_those_of_the_env(case, rng):
    env_id, kwargs = CASES[case]
    tasks = list(TextGymTaskset(TextGymConfig(env_id=env_id, env_kwargs=kwargs, size=500, seed=1)))
    env, paid, steps = gym.make(env_id, **kwargs).unwrapped, set(), 0
    for task in tasks:
        row = json.loads(json.dumps(task.data.row))  # as it travels
        answer = row.get("reference", "") if rng.random() < 0.5 else ""
        begun = [*env.encode(answer if isinstance(answer, str) else answer[0]), *([44] if answer else [])]
        begun = begun[: env.mdp.max_new_tokens]
        episode = write_episode(env, rng, begun=begun, options={"prompt": row})
        text = env.task.decode_parts(episode.observations[-1])[1]
        try:
            again = env.task.encode_parts(env.task.prompts.texts([episode.prompt_id])[0], text)
        except ValueError:
            continue  # a text of which the tokenizer makes other tokens, so that the reply is another episode
        if again.tolist() == episode.observations[-1].tolist():
            trace = replied(task, text)
            assert trace.reward == pytest.approx(episode.total, rel=1e-12)
            components = {name: episode.info[name] for name in env.scorer.component_names}
            assert trace.metrics == pytest.approx({"refused": 0.0} | components)
            paid.add(trace.reward)
            steps += len(episode.tokens)
    print(f"{case}: {steps} tokens compared")
    assert len(paid) > 1 and steps > 1000


def test_the_last_reply_counts_with_its_spaces():
    """`Trace.last_reply` would lose them, and the env's words begin with one."""
    (task,) = TextGymTaskset(TextGymConfig(env_id="TextGenArithmetic-v0", size=1))
    right = task.data.row["reference"]
    assert replied(task, "1", right).reward == 1.0
    assert replied(task, right, "1").reward == 0.0
    assert replied(task, f" {right}").metrics["refused"] == 1.0


@pytest.mark.parametrize("reply", ["the answer is 5", "123456", "é"])
def test_what_the_env_could_not_have_written_is_counted(reply):
    config = TextGymConfig(env_id="TextGenArithmetic-v0", size=1, task={"refused_reward": -1.0})
    (task,) = TextGymTaskset(config)
    trace = replied(task, reply)
    assert trace.reward == -1.0 and trace.metrics == {"refused": 1.0}


def test_an_empty_reply_is_an_episode():
    (task,) = TextGymTaskset(TextGymConfig(env_id="TextGenArithmetic-v0", size=1))
    assert replied(task, "").metrics["refused"] == 0.0 and replied(task).reward == 0.0


def test_views_and_splits():
    taskset = TextGymTaskset(TextGymConfig(env_id="TextGenArithmetic-v0", env_kwargs={"split": "test"}))
    few = list(taskset.shuffle(seed=1).take(5))
    assert len(few) == 5 and few[0].data.idx is not None
    train = TextGymTaskset(TextGymConfig(env_id="TextGenArithmetic-v0", env_kwargs={"split": "train"}))
    assert not {t.data.prompt for t in taskset} & {t.data.prompt for t in train}
    assert len({task.key for task in few}) == 5


def test_the_section_of_the_page_is_a_program(tmp_path, monkeypatch):
    code = blocks(section(page("bridges"), "verifiers"))
    (tmp_path / "sums.py").write_text(code[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(code), {})
    assert taskset_class("sums") is TextGymTaskset
