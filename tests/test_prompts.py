"""Prompt sources of every kind, the table, and an error for each way to get them wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from textgym.mdp import TextMDP
from textgym.prompts import PromptTable, load_prompts
from textgym.tokenizers import character_tokenizer, make_tokenizer

TOKENIZER = character_tokenizer("abcd")
MDP = TextMDP(vocab_size=5, max_prompt_tokens=3, max_new_tokens=2, eos_token_ids=(4,), bos_token_id=4)
SOURCE = ["a", "b"]


def draw(rng):
    """A sampler: one or two letters."""
    return {"prompt": "".join(rng.choice(list("ab"), size=rng.integers(1, 3))), "level": 1}


def contents(source):
    return [prompt.content for prompt in load_prompts(source)]


def test_lists_files_and_import_strings(tmp_path):
    (tmp_path / "p.txt").write_text("a\nbc\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "answer": 1}\n{"prompt": "", "answer": 2}\n')
    assert contents(["a", "bc"]) == contents(str(tmp_path / "p.txt")) == contents(tmp_path / "p.txt") == ["a", "bc"]
    loaded = load_prompts(str(tmp_path / "p.jsonl"))
    assert [(p.content, p.columns) for p in loaded] == [("a", {"answer": 1}), ("", {"answer": 2})]
    assert contents("tests.test_prompts:SOURCE") == ["a", "b"]
    assert load_prompts("tests.test_prompts:draw") is draw
    assert len(contents("reviews")) > 100


def test_an_iterable_of_dicts_and_chats():
    rows = ({"prompt": p, "reference": p.upper()} for p in "ab")
    assert [p.columns["reference"] for p in load_prompts(rows)] == ["A", "B"]
    chat = [{"role": "user", "content": "hi"}]
    assert contents([chat, chat]) == [chat, chat] and contents([{"prompt": chat}]) == [chat]


def test_a_datasets_like_table_keeps_its_columns():
    class Table:  # what datasets.Dataset offers: iteration over dicts
        def __iter__(self):
            return iter([{"prompt": "ab", "score": 0.5}])

    table = PromptTable(Table(), TOKENIZER, MDP)
    assert table.columns(np.array([0, 0])) == {"score": [0.5, 0.5]}
    assert table.observations(np.array([0])).tolist() == [[5, 0, 1, 5, 5]] and table.texts(np.array([0])) == ["ab"]


def test_chats_go_through_the_template():
    from transformers import PreTrainedTokenizerFast

    backend = character_tokenizer("abcdu:>").backend
    pretrained = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", bos_token="<eos>")
    chat = [{"role": "user", "content": "ab"}]
    with pytest.raises(ValueError, match="no chat template"):
        PromptTable([chat], make_tokenizer(pretrained), MDP)
    pretrained.chat_template = (
        "{% for m in messages %}u:{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    mdp = TextMDP(vocab_size=8, max_prompt_tokens=6, max_new_tokens=2, eos_token_ids=(7,))
    table = PromptTable([chat], make_tokenizer(pretrained), mdp)
    assert table.texts(np.array([0])) == ["u:ab>"] and table.contents(np.array([0])) == [chat]
    assert table.observations(0).tolist() == [8, 4, 5, 0, 1, 6, 8, 8]


def test_a_sampler_grows_the_table_and_meets_prompts_again():
    table, rng = PromptTable(draw, TOKENIZER, MDP), np.random.default_rng(0)
    drawn = table.draw(rng, 200)
    texts = table.texts(drawn)
    assert len(set(texts)) == len(set(drawn.tolist())) == 6
    for text, row in zip(texts, table.observations(drawn), strict=True):
        assert row[row != 5].tolist() == TOKENIZER.encode(text)
    assert table.columns(drawn[:2]) == {"level": [1, 1]}


def test_a_pinned_prompt_finds_its_row_and_columns():
    table = PromptTable([{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}], TOKENIZER, MDP)
    assert table.add("b") == 1 and table.add_ids(np.array([5, 1])) == 1
    new = table.add("c")
    assert new == 2 and table.columns(np.array([1, 2])) == {"n": [2, None]}
    assert {int(i) for i in table.draw(np.random.default_rng(0), 100)} == {0, 1}  # pins are not drawn


def test_the_number_of_prompts_is_the_sources():
    table = PromptTable(SOURCE, TOKENIZER, MDP)
    table.add("c")
    assert table.num_prompts == 2 and PromptTable([""], TOKENIZER, MDP).num_prompts == 1
    sampled = PromptTable(draw, TOKENIZER, MDP)
    sampled.draw(np.random.default_rng(0), 3)
    assert sampled.num_prompts is None


CHAT_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
PINNED = {
    "texts": ["", "a", "ab"],
    "columns": [{"prompt": "a", "n": 1}, {"prompt": "a", "n": 2}, {"prompt": "b", "n": [1, {"deep": None}]}],
    "chats": [[{"role": "user", "content": c}] for c in "ab"],
    "alike when truncated": ["abcda", "bcda", "cda"],
    "chats and columns": [{"prompt": [{"role": "user", "content": c}], "n": n} for n in (1, 2) for c in "ab"],
}


@pytest.mark.parametrize("source", PINNED)
def test_a_pin_keeps_the_id(source):
    from transformers import PreTrainedTokenizerFast

    pretrained = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend, eos_token="<eos>", bos_token="<eos>")
    pretrained.chat_template = CHAT_TEMPLATE
    table = PromptTable(PINNED[source], make_tokenizer(pretrained), MDP, truncate=True)
    assert table.num_prompts == len(PINNED[source])
    assert table.contents(np.arange(table.num_prompts)) == [p.content for p in load_prompts(PINNED[source])]
    assert [table.add(table.pin(i)) for i in range(table.num_prompts)] == list(range(table.num_prompts))
    with pytest.raises(IndexError):
        table.texts([table.num_prompts])  # nothing was added


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "the prompt source is empty"),
        ("reviws", "unknown prompt source 'reviws'"),
        (7, "cannot be a int"),
        ({"prompt": "a"}, "cannot be a dict"),
        (["a", 3], "prompt 1 is 3"),
        ([{"text": "a"}], r"prompt 0 has no 'prompt' key, only \['text'\]"),
        ([{"role": "user", "content": "a"}], "a chat is a list of messages, and a source a list of chats"),
        ([{"prompt": "a", "completions": 1}], "column named 'completions'"),
        ([{"prompt": "a", "n": 1}, {"prompt": "b"}], r"prompt 1 has columns \[\], prompt 0 \['n'\]"),
        ("tests.test_prompts:nothing", "has no 'nothing'"),
        ("no_such_module_here:x", "no module 'no_such_module_here'"),
    ],
)
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(source)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_prompts(str(tmp_path / "none.txt"))
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n{oops\n")
    with pytest.raises(ValueError, match="line 2 of .*p.jsonl' is not JSON"):
        load_prompts(str(tmp_path / "p.jsonl"))
    (tmp_path / "p.txt").write_text("a\n\nb\n")
    with pytest.raises(ValueError, match="line 2 .* is blank"):
        load_prompts(str(tmp_path / "p.txt"))


def test_long_and_empty_prompts():
    with pytest.raises(ValueError, match="'abca' has 4 tokens, more than max_prompt_tokens=3"):
        PromptTable(["a", "abca"], TOKENIZER, MDP)
    assert PromptTable(["abcd"], TOKENIZER, MDP, truncate=True).observations(0).tolist() == [1, 2, 3, 5, 5]
    assert PromptTable([""], TOKENIZER, MDP).observations(0).tolist() == [5, 5, 4, 5, 5]
    with pytest.raises(ValueError, match="no BOS token"):
        PromptTable([""], TOKENIZER, TextMDP(5, 3, 2, (4,)))


def test_the_tokenizers():
    assert make_tokenizer({"name": "characters", "alphabet": "xyz"}).encode("zx") == [2, 0]
    with pytest.raises(ValueError, match="cannot encode 'e'"):
        TOKENIZER.encode("e")
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
