"""Texts of single characters: small enough for agents that know nothing of language."""

from textgym.tasks.base import Task

TASKS = [
    Task(
        id="TextGenChars-v0",
        summary='write up to 8 characters of "abcd"; paid for the share that "ab" covers',
        description="""\
A task for checking agents quickly. There is no language in it, so agents without a language model can learn it, such
as stable-baselines3's PPO with `MlpPolicy`. The optimum, 1, is known: "ab" repeated, however often. An "a" pays only
where a "b" follows, which makes it a little more than a bandit.""",
        reward="""\
The share of the completion's characters that belong to an "ab". "abcd" gives 0.5, "abab" gives 1, and an empty
completion gives 0.""",
        reward_range=(0.0, 1.0),
        kwargs={
            "tokenizer": {"name": "characters", "alphabet": "abcd"},
            "prompts": [""],
            "scorer": {"name": "regex", "pattern": "ab"},
            "max_prompt_tokens": 1,
            "max_new_tokens": 8,
        },
        model=None,
    ),
]
