"""Texts as finished episodes: the inverse of `decode_parts`, and what no episode can be."""

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401
from tests.conftest import CHARACTERS


def task(**kwargs):
    return gym.make("TextGen-v0", **{"prompts": [""], **kwargs}).unwrapped.task


def ids(made, prompt, completion):
    """The real tokens of the episode, prompt and completion."""
    row, width = made.encode_parts(prompt, completion), made.mdp.max_prompt_tokens
    assert row.shape == made.mdp.observation_space.shape and row.dtype == np.int64 and made.mdp.ended(row)
    return tuple(cells[cells != made.mdp.pad_id].tolist() for cells in (row[:width], row[width:]))


def test_eos_is_added_where_there_is_room():
    made = task(**CHARACTERS)
    assert ids(made, "ab", "cd") == ([0, 1], [2, 3, 4])
    assert ids(made, "", "a") == ([4], [0, 4])  # BOS stands for the empty prompt
    assert ids(made, "a", "bcdabc") == ([0], [1, 2, 3, 0, 1, 2])  # ends by length
    assert ids(made, "a", "bcdab<eos>") == ids(made, "a", "bcdab") == ([0], [1, 2, 3, 0, 1, 4])
    assert ids(made, "a", "") == ([0], [4])
    row = made.encode_parts("ab", "cd")
    assert row.tolist() == [5, 0, 1, 2, 3, 4, 5, 5, 5] and made.decode_parts(row) == ("ab", "cd")


@pytest.mark.parametrize("tokenizer", ["tiny", "bytes", {"name": "words", "words": ["the", "film", "was", "good"]}])
def test_parts_come_back_as_they_were(tokenizer):
    made = task(tokenizer=tokenizer, max_prompt_tokens=20, max_new_tokens=40)
    for prompt, completion in (("the film", " was good"), ("the film was", " good good"), ("the", " film")):
        assert made.decode_parts(made.encode_parts(prompt, completion)) == (prompt, completion)


def test_a_token_across_the_seam_is_split_so_that_the_prompt_stays_what_it_is():
    made = task()
    alone, joined = made.tokenizer.encode("The fil"), made.tokenizer.encode("The film")
    assert joined[: len(alone)] != alone  # one token spans the seam
    prompt, completion = ids(made, "The fil", "m was good")
    assert prompt == alone and made.tokenizer.decode(prompt + completion) == "The film was good"


def test_a_prompt_is_cut_only_where_the_env_cuts_its_own():
    with pytest.raises(ValueError, match="^the prompt, 'abcd', has 4 tokens, more than max_prompt_tokens=3"):
        task(**CHARACTERS).encode_parts("abcd", "a")
    assert ids(task(**CHARACTERS, truncate_prompts=True), "abcd", "a") == ([1, 2, 3], [0, 4])


@pytest.mark.parametrize(
    ("kwargs", "completion", "words"),
    [
        ({}, "abcdabc", "the completion 'abcdabc' has 7 tokens, more than max_new_tokens=6"),
        ({}, "ab<eos>c", "token 2 of the completion 'ab<eos>c' ends the episode before its end"),
        ({}, "x", "the tokenizer cannot encode"),
        ({"banned_tokens": [1]}, "ab", "the env forbids token 1 of the completion 'ab', id 1 "),
        ({"allowed_tokens": [0, 4]}, "aac", "the env forbids token 2 of the completion 'aac', id 2 "),
        ({"min_new_tokens": 3}, "ab", "the env forbids token 2 of the completion 'ab', id 4 "),
    ],
    ids=str,
)
def test_what_the_env_could_not_write_is_refused(kwargs, completion, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        task(**CHARACTERS, **kwargs).encode_parts("a", completion)


def test_parts_that_the_tokenizer_joins_otherwise_are_refused():
    """SentencePiece puts a space before a text of its own, so the second half of a word cannot be written alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["\N{LOWER ONE EIGHTH BLOCK}ab", "\N{LOWER ONE EIGHTH BLOCK}a", "\N{LOWER ONE EIGHTH BLOCK}b", "<unk>"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made = task(tokenizer=textgym.tokenizers.Tokenizer(backend, 3, 3), max_prompt_tokens=3, max_new_tokens=4)
    assert ids(made, "a", " b") == ([1], [2, 3])
    with pytest.raises(
        ValueError, match="the completion 'b' cannot be written behind the prompt 'a': they would read 'a b'"
    ):
        made.encode_parts("a", "b")
