"""Tasks so small that every completion can be enumerated, so that the exact answer to every question is known."""

from textgym.tasks.base import Task

ENV = "textgym.envs:TextGenToyEnv"
EXACT = {"exact answers by enumeration": "../exact.md"}

TASKS = [
    Task(
        id="TextGenToy-v0",
        summary="write up to 4 of 4 tokens; every completion can be enumerated",
        description="""\
Four ordinary tokens, 0 to 3, and at most four of them in a completion: 85 contexts and 341 completions. The best
policy, every target distribution and every divergence can be computed exactly, so what an agent should have found is
known.""",
        reward="""\
The number of tokens 1 in the completion, minus half the number of tokens 3. The best completion is 1 1 1 1, worth 4;
the worst is 3 3 3 3, worth -2.""",
        reward_range=(-2.0, 4.0),
        env=ENV,
        model="table",
        see_also=EXACT,
    ),
    Task(
        id="TextGenWords-v0",
        summary="write up to 5 of 12 words of a movie review; paid for positive sentiment",
        description="""\
Twelve words, at most five of them in a completion: 22,621 contexts and 271,453 completions. It reads like a review
("acting is very good"), it has a real scorer, and yet it can be enumerated: a bridge from the toy to language.""",
        reward="""\
VADER's compound score of the completion. A completion without any word of sentiment gives 0; "not" turns what
follows it around.""",
        reward_range=(-1.0, 1.0),
        kwargs={
            "words": "the film plot acting is was not very good great bad boring".split(),
            "max_new_tokens": 5,
            "scorer": "sentiment",
        },
        env=ENV,
        model="table",
        see_also=EXACT,
    ),
]
