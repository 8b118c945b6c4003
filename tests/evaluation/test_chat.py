"""A conversation: what the template makes of it, pieces that add up, and the limits of the env."""

import gymnasium as gym
import numpy as np
import pytest

from tests.helpers.chat import chat_tokenizer
from textgym.evaluation import Conversation, NoReward


def make(prompt_tokens=24, new_tokens=6):
    return gym.make_vec(
        "TextGen-v0",
        num_envs=1,
        autoreset_mode="Disabled",
        tokenizer=chat_tokenizer(),
        prompts=["a"],
        scorer=NoReward(),
        max_prompt_tokens=prompt_tokens,
        max_new_tokens=new_tokens,
    )


def says(env, texts):
    """A policy that writes the given replies, one after the other, and EOS after each; and the prompts it saw."""
    tokenizer, mdp, seen = env.unwrapped.tokenizer, env.unwrapped.mdp, []
    rest = [list(tokenizer.encode(text)) + [mdp.eos_token_ids[0]] for text in texts]

    def choose(rows):
        if (rows[0, mdp.max_prompt_tokens :] == mdp.pad_id).all():
            seen.append(env.unwrapped.task.decode_parts(rows[0])[0])
        token = rest[0].pop(0)
        if not rest[0]:
            rest.pop(0)
        return np.array([token])

    return choose, seen


def test_the_prompt_is_all_that_was_said():
    env = make()
    choose, seen = says(env, ["ba", "cab"])
    conversation = Conversation(env, choose)
    assert list(conversation.reply("ab")) == ["b", "a", ""]  # EOS adds nothing
    assert conversation.messages == [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "ba"}]
    assert "".join(conversation.reply("d")) == "cab"
    assert seen == ["u:ab;a:", "u:ab;a:ba;u:d;a:"]
    conversation.messages = []
    with pytest.raises(IndexError):  # the policy has nothing left to say
        list(conversation.reply("d"))
    assert conversation.messages == []  # an incomplete reply is not kept


def test_a_reply_ends_at_the_limit():
    env = make(new_tokens=2)
    assert "".join(Conversation(env, says(env, ["abcd"])[0]).reply("a")) == "ab"


def test_a_conversation_longer_than_the_prompt_is_refused_and_not_kept():
    env = make(prompt_tokens=12)
    conversation = Conversation(env, says(env, ["bbbb"])[0])
    list(conversation.reply("a"))
    before = list(conversation.messages)
    with pytest.raises(ValueError, match="more than max_prompt_tokens=12"):
        list(conversation.reply("ddd"))
    assert conversation.messages == before
