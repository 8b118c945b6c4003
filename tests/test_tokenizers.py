"""Tokenizers of every family: the text of a row is one text, however it is cut in two."""

import json
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.scorers import Scorer
from textgym.testing import make_generations
from textgym.tokenizers import byte_tokenizer, character_tokenizer, make_tokenizer, word_tokenizer

PIECES = ["<s>", "</s>", "▁the", "▁film", "▁was", "▁good", "ly"]
WORDS = ["<s>", "</s>", "the", "film", "was", "good", "##ly"]


def fast(vocabulary, pre_tokenizer, decoder):
    """A transformers tokenizer of whole words, which decodes as its family does."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token=vocabulary[0]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoder
    return make_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))


def family(name):
    from tokenizers import decoders, pre_tokenizers

    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    llama2 = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return {
        "sentencepiece": lambda: fast(PIECES, metaspace, decoders.Metaspace(prepend_scheme="first")),
        "llama-2": lambda: fast(PIECES, metaspace, decoders.Sequence(llama2)),
        "wordpiece": lambda: fast(WORDS, pre_tokenizers.Whitespace(), decoders.WordPiece(prefix="##")),
        "words": lambda: word_tokenizer(["the", "film", "was", "good"]),
        "characters": lambda: character_tokenizer("abcdefghijklmnopqrstuvwxyz "),
        "bytes": byte_tokenizer,
        "tiny": lambda: make_tokenizer("tiny"),
    }[name]()


FAMILIES = ["sentencepiece", "llama-2", "wordpiece", "words", "characters", "bytes", "tiny"]
TOKENIZERS = {}


def tokenizer_of(name):
    return TOKENIZERS.setdefault(name, family(name))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_make_up_the_text_of_the_row(name, data):
    tokenizer = tokenizer_of(name)
    ids = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=6)
    rows = [(data.draw(ids), data.draw(ids)) for _ in range(data.draw(st.integers(1, 3)))]
    parts = tokenizer.decode_parts(*map(list, zip(*rows, strict=True)))
    for (prompt_ids, completion_ids), prompt, completion in zip(rows, *parts, strict=True):
        assert prompt + completion == tokenizer.decode([*prompt_ids, *completion_ids])
        alone = tokenizer.decode(prompt_ids)
        assert prompt == alone or not tokenizer.decode([*prompt_ids, *completion_ids]).startswith(alone)


@pytest.mark.parametrize("name", ["sentencepiece", "llama-2", "wordpiece", "words"])
def test_the_space_between_prompt_and_completion(name):
    class Seen(Scorer):
        name = "seen"

        def score(self, generations):
            self.read = generations.prompts, generations.completions, generations.texts
            return [0.0] * len(generations)

    for scorer, pays in ((Seen(), 0.0), ("sentiment", pytest.approx(0.4404))):
        env = gym.make(
            "TextGen-v0",
            tokenizer=tokenizer_of(name),
            prompts=["the film was"],
            max_new_tokens=1,
            scorer=scorer,
            render_mode="ansi",
        ).unwrapped
        env.reset(seed=0)
        row, reward, *_ = env.step(env.encode("good")[0])
        assert reward == pays
        assert env.decode(row) == "the film was good"
        assert env.task.decode_parts(row) == ("the film was", " good")
        assert env.render().startswith("[the film was] good")
        if scorer != "sentiment":
            assert scorer.read == (["the film was"], [" good"], ["the film was good"])


def test_a_character_whose_bytes_prompt_and_completion_share():
    first, second = "é".encode()
    coder = byte_tokenizer()
    assert coder.decode_parts([[99, first]], [[second, 33]]) == (["c"], ["é!"])
    assert coder.decode_parts([[99, first]], [[33]]) == (["c\N{REPLACEMENT CHARACTER}"], ["!"])
    assert coder.decode_parts([[99]], [[second, 33]]) == (["c"], ["\N{REPLACEMENT CHARACTER}!"])


def test_a_decoder_that_changes_the_end_of_the_prompt():
    from tokenizers import decoders, pre_tokenizers

    contracts = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Replace("can not", "can't")]
    coder = fast(["<s>", "</s>", "I", "▁can", "▁not"], pre_tokenizers.Whitespace(), decoders.Sequence(contracts))
    assert coder.decode_parts([[2, 3]], [[4]]) == (["I can"], ["'t"])
    strips = [decoders.Fuse(), decoders.Strip(" ", 0, 1)]
    coder = fast(["<s>", "</s>", "I ", "can"], pre_tokenizers.Whitespace(), decoders.Sequence(strips))
    assert coder.decode_parts([[2]], [[3]]) == (["I"], [" can"])


def test_special_tokens_and_bos_alone():
    coder = tokenizer_of("llama-2")
    assert coder.decode_parts([[0]], [[5, 1]]) == ([""], ["good"])  # the same as decode
    assert coder.decode_parts([[0, 2]], [[5, 1]]) == (["the"], [" good"])


def test_generations_of_a_cut_prompt_read_what_is_left_of_it():
    env = gym.make(
        "TextGen-v0",
        tokenizer=tokenizer_of("words"),
        prompts=["the film was"],
        max_prompt_tokens=2,
        max_new_tokens=1,
        truncate_prompts=True,
        scorer=lambda prompts, completions: [float(len(prompts[0])) + len(completions[0]) / 100],
    )
    row, _ = env.reset(seed=0)
    assert env.unwrapped.decode(row) == "film was"
    assert env.step(3)[1] == pytest.approx(12 + 5 / 100)  # the source's prompt, and " good"


def test_make_generations_decodes_like_the_env():
    batch = make_generations(["the film", "was"], ["was good", ""], tokenizer={"name": "words", "words": WORDS[2:6]})
    assert batch.texts == ["the film was good", "was"] and batch.completions == [" was good", ""]
    assert batch.select(np.array([1, 0])).texts == ["was", "the film was good"]


def test_the_tokenizers():
    assert make_tokenizer({"name": "characters", "alphabet": "xyz"}).encode("zx") == [2, 0]
    with pytest.raises(ValueError, match="cannot encode 'e'"):
        character_tokenizer("abcd").encode("e")
    with pytest.raises(ValueError, match="each only once"):
        character_tokenizer("aa")
    byte = make_tokenizer("bytes")
    text = "héllo\n😀"
    assert byte.encode(text) == list(text.encode()) and byte.decode([*byte.encode(text), 256]) == text
    assert byte.vocab_size == 257 and byte.eos_token_id == 256
    with pytest.raises(ValueError, match="unknown tokenizer 3"):
        make_tokenizer(3)
    with pytest.raises(ValueError, match="slow tokenizer"):
        make_tokenizer(SimpleNamespace(chat_template=None, is_fast=False))


def test_added_tokens_count_in_the_vocabulary():
    from transformers import PreTrainedTokenizerFast

    pretrained = PreTrainedTokenizerFast(tokenizer_object=character_tokenizer("ab").backend, eos_token="<eos>")
    pretrained.add_tokens(["<tool>"])
    tokenizer = make_tokenizer(pretrained)
    assert tokenizer.vocab_size == len(pretrained) == 4 and tokenizer.encode("a<tool>b") == [0, 3, 1]


@pytest.mark.parametrize(("written", "expected"), [([2, 1, 3], (1, 2, 3)), (2, (1, 2)), (1, (1,)), (None, (1,))])
def test_a_generation_config_may_name_more_ends(tmp_path, written, expected):
    tokenizer_of("wordpiece").pretrained.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": written}))
    task = {"prompts": ["the film"], "max_new_tokens": 4}
    env = gym.make("TextGen-v0", tokenizer=str(tmp_path), **task).unwrapped
    assert env.mdp.eos_token_ids == expected
    env.reset(seed=0)
    assert env.step(3)[2] == (3 in expected)
    given = gym.make("TextGen-v0", tokenizer=str(tmp_path), eos_token_ids=[3], **task).unwrapped
    loaded = gym.make("TextGen-v0", tokenizer=tokenizer_of("wordpiece").pretrained, **task).unwrapped
    assert given.mdp.eos_token_ids == (3,) and loaded.mdp.eos_token_ids == (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"eos_token_id": [2, 99]}', r"generation_config.json names the end ids \[2, 99\], but 99 is none .* 0 to 6"),
        ('{"eos_token_id": -1}', r"names the end ids \[-1\], but -1 is none of .*eos_token_ids=\[...\]"),
        ('{"eos_token_id": "</s>"}', "^eos_token_id in '.*generation_config.json' is '</s>'; it must be an integer, a"),
        ('{"eos_token_id": 2.0}', "^eos_token_id in '.*generation_config.json' is 2.0"),
        (
            '{"eos_token_id": [2, null]}',
            "^an eos_token_id in '.*generation_config.json' is None; it must be an integer",
        ),
        ("[2]", "generation_config.json' is no JSON object"),
        ("{", "generation_config.json' is no JSON object"),
    ],
)
def test_a_wrong_end_in_a_generation_config_names_the_file(tmp_path, text, message):
    tokenizer_of("wordpiece").pretrained.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        gym.make("TextGen-v0", tokenizer=str(tmp_path))
    if "none" in message:  # the way out that the message names
        env = gym.make("TextGen-v0", tokenizer=str(tmp_path), prompts=["the film"], eos_token_ids=[2])
        assert env.unwrapped.mdp.eos_token_ids == (2,)


def test_without_a_generation_config_the_tokenizers_own_end_counts(tmp_path):
    tokenizer_of("wordpiece").pretrained.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert make_tokenizer(str(tmp_path)).eos_token_ids == (1,)
    assert make_tokenizer("tiny").eos_token_ids == (make_tokenizer("tiny").eos_token_id,)
