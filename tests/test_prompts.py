"""Prompt sources of every kind, the table, and an error for each way to get them wrong."""

import json
import threading

import numpy as np
import pytest

from textgym import prompt_table
from textgym.mdp import TextMDP
from textgym.prompt_table import PromptTable
from textgym.prompts import load_prompts
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


def test_a_pin_has_no_column_that_the_source_lacks():
    table = PromptTable([{"prompt": "a", "n": 1, "answer": 2}], TOKENIZER, MDP)
    assert table.columns([table.add({"prompt": "b", "n": 3})]) == {"n": [3], "answer": [None]}
    with pytest.raises(ValueError, match=r"pinned prompt has the column 'anser', .* mean 'answer'.*\['n', 'answer'\]"):
        table.add({"prompt": "b", "anser": 3})
    with pytest.raises(ValueError, match="the pinned prompt has the column 'n', which the source's prompts do not"):
        PromptTable(["a"], TOKENIZER, MDP).add({"prompt": "b", "n": 3})


def test_the_columns_of_a_sampler_are_those_of_its_first_prompt_whatever_was_pinned_before():
    table, rng = PromptTable(draw, TOKENIZER, MDP), np.random.default_rng(0)
    bare, other = table.add("c"), table.add({"prompt": "c", "other": 5})
    assert table.columns([bare, other]) == {"other": [None, 5]}  # the sampler has not said yet which there are
    (drawn,) = table.draw(rng, 1)
    assert table.columns([drawn, bare, other]) == {"level": [1, None, None]}
    rows = iter([{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}, {"prompt": "a", "m": 3}])
    table = PromptTable(lambda rng: next(rows), TOKENIZER, MDP)
    assert table.columns(table.draw(rng, 2)) == {"n": [1, 2]}
    with pytest.raises(ValueError, match=r"the sampled prompt has columns \['m'\], the first one \['n'\]"):
        table.draw(rng, 1)


def test_the_number_of_prompts_is_the_sources():
    table = PromptTable(SOURCE, TOKENIZER, MDP)
    table.add("c")
    assert table.num_prompts == 2 and PromptTable([""], TOKENIZER, MDP).num_prompts == 1
    sampled = PromptTable(draw, TOKENIZER, MDP)
    sampled.draw(np.random.default_rng(0), 3)
    assert sampled.num_prompts is None


def test_prompts_that_nobody_uses_are_let_go(monkeypatch):
    monkeypatch.setattr(prompt_table, "KEPT", 3)
    letters, rng = character_tokenizer("abcdefghijklmnopqrstuvwxyz"), np.random.default_rng(0)
    mdp = TextMDP(vocab_size=27, max_prompt_tokens=3, max_new_tokens=2, eos_token_ids=(26,), bos_token_id=26)
    table = PromptTable(["a", "b"], letters, mdp)
    ids = [table.add(letter) for letter in "cdefgh"]
    assert ids == [2, 3, 4, 5, 6, 7] and len(table) == 8
    table.release(np.array([[2, -1]]), 0)  # c is in use; f, g and h were met last
    assert len(table) == 6 and table.texts([0, 1, 2, 5, 6, 7]) == list("abcfgh")
    with pytest.raises(IndexError, match="there is no prompt 3: .* until 3 others were met after"):
        table.texts([2, 3])
    assert table.add("f") == 5  # met again, so the newest now
    assert table.add("d") == 8  # an id is never given twice
    assert table.observations([[2], [8]])[:, 0, 2].tolist() == [2, 3]
    for letter in "ijk":
        table.add(letter)
    table.release()
    assert table.texts([9, 10, 11]) == list("ijk") and len(table) == 5
    for _ in range(100):
        table.add("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=3)))
        table.release()
        assert len(table) <= 8
    assert set(table.texts(table.draw(rng, 50))) == {"a", "b"}


def test_many_prompts_in_use_are_kept(monkeypatch):
    monkeypatch.setattr(prompt_table, "KEPT", 1)
    table = PromptTable(draw, TOKENIZER, MDP)
    ids = [table.add(text) for text in ("a", "b", "c", "d", "aa", "ab")]
    table.release(ids)
    assert table.texts(ids) == ["a", "b", "c", "d", "aa", "ab"]


def test_columns_that_are_arrays():
    rows = [{"prompt": "a", "n": np.arange(i + 1)} for i in range(2)] + [{"prompt": "a", "n": float("nan")}]
    table = PromptTable(rows, TOKENIZER, MDP)
    assert [table.add(table.pin(i)) for i in range(3)] == [0, 1, 2]
    assert table.add({"prompt": "a", "n": np.arange(2)}) == 1 and table.add({"prompt": "a", "n": np.arange(3)}) == 3


def test_what_the_table_takes_and_gives_is_a_copy():
    chat, answers = [{"role": "user", "content": "a"}], ["x", {"deep": [1]}]
    pretrained = make_tokenizer("bytes").to_pretrained()
    pretrained.chat_template = CHAT_TEMPLATE
    mdp = TextMDP(vocab_size=257, max_prompt_tokens=3, max_new_tokens=2, eos_token_ids=(256,))
    table = PromptTable([{"prompt": chat, "answers": answers}], make_tokenizer(pretrained), mdp)

    def assert_untouched():
        assert table.contents([0]) == [[{"role": "user", "content": "a"}]]
        assert table.columns([0]) == {"answers": [["x", {"deep": [1]}]]}
        assert table.add(table.pin(0)) == 0

    chat[0]["content"], chat[1:], answers[1]["deep"] = "b", ["c"], 2  # the user's own
    assert_untouched()
    table.contents([0])[0].append("d")
    table.contents([0])[0][0]["content"] = "e"
    table.columns([0])["answers"][0][1]["deep"].append(3)
    table.pin(0)["answers"].pop()
    table.pin(0)["prompt"].pop()
    assert_untouched()


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
        ([{"prompt": "a", "n": 1}, {"prompt": "b", 1: 1}], "prompt 1 has the key 1; keys are texts"),
        ([{"prompt": "a", "lock": threading.Lock()}], "prompt 0 has a value that cannot be copied: TypeError: .*lock"),
        ({"a", "b"}, "cannot be a set"),
        (b"ab", "cannot be a bytes"),
        ("tests.test_prompts:nothing", "has no 'nothing'"),
        ("no_such_module_here:x", "no module 'no_such_module_here'"),
        ("os:getcwd", "prompt source 'os:getcwd': <built-in function getcwd> is no prompt sampler, a function of a"),
        ("os:sep", "prompt source 'os:sep': unknown prompt source '/'"),
        (lambda: "a", "is no prompt sampler, a function of a numpy.random.Generator: too many positional arguments"),
        (lambda rng, size: "a", "is no prompt sampler, .*missing a required argument: 'size'"),
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
    for value in ("[" * 100_000, '{"prompt": ' + "9" * 5000 + "}"):
        (tmp_path / "p.jsonl").write_text(f'{{"prompt": "a"}}\n{value}\n')
        with pytest.raises(ValueError, match="line 2 of .*p.jsonl' is not JSON that can be read: "):
            load_prompts(str(tmp_path / "p.jsonl"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(IsADirectoryError, match="folder.txt' is a directory"):
        load_prompts(tmp_path / "folder.txt")
    (tmp_path / "p.txt").write_text("a\n\nb\n")
    with pytest.raises(ValueError, match="line 2 .* is blank"):
        load_prompts(str(tmp_path / "p.txt"))


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_only_newlines_end_a_line(tmp_path, character, newline):
    odd = f"a{character}b"
    (tmp_path / "p.txt").write_bytes(f"{odd}{newline}two{newline}".encode())
    assert contents(tmp_path / "p.txt") == [odd, "two"]
    rows = [{"prompt": odd, "n": 1}, {"prompt": "two", "n": 2}]
    if character > "\x1f":  # JSON writes the others as escapes
        lines = newline.join(json.dumps(row, ensure_ascii=False) for row in rows)
        (tmp_path / "p.jsonl").write_bytes(lines.encode())
        assert [{"prompt": p.content, **p.columns} for p in load_prompts(tmp_path / "p.jsonl")] == rows


def test_byte_order_marks_and_other_encodings(tmp_path):
    (tmp_path / "p.txt").write_bytes("one\ntwo\n".encode("utf-8-sig"))
    assert contents(tmp_path / "p.txt") == ["one", "two"]
    (tmp_path / "p.jsonl").write_bytes('{"prompt": "a"}\n'.encode("utf-8-sig"))
    assert contents(tmp_path / "p.jsonl") == ["a"]
    for data, number in (
        ("one\n".encode("utf-16"), 1),
        ("one\r\ntwo\rcaf\xe9\n".encode("latin-1"), 3),
        ("one\n\xe9\n".encode("latin-1"), 2),
    ):
        (tmp_path / "p.txt").write_bytes(data)
        with pytest.raises(ValueError, match=rf"line {number} of '.*p.txt' is not UTF-8 .*; save the file as UTF-8"):
            load_prompts(tmp_path / "p.txt")


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_encodings_without_a_byte_order_mark(tmp_path, name, encoding):
    (tmp_path / name).write_bytes('"one"\n"two"\n'.encode(encoding))  # bytes that are valid UTF-8
    with pytest.raises(ValueError, match=f"{name}' holds the character U.0000, .*; save the file as UTF-8"):
        load_prompts(tmp_path / name)


def chat_table(template, *chats):
    pretrained = make_tokenizer("bytes").to_pretrained()
    pretrained.chat_template = template
    mdp = TextMDP(vocab_size=257, max_prompt_tokens=64, max_new_tokens=2, eos_token_ids=(256,))
    return PromptTable(list(chats), make_tokenizer(pretrained), mdp)


def test_a_chat_that_ends_with_the_assistant_is_gone_on_with():
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    asked, begun = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "It is"}
    table = chat_table(template, [asked], [asked, begun], [asked, begun, asked])
    assert table.texts([0, 1, 2]) == [
        "[user]hi<end>[assistant]",
        "[user]hi<end>[assistant]It is",
        "[user]hi<end>[assistant]It is<end>[user]hi<end>[assistant]",
    ]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "It"}]}]
    with pytest.raises(ValueError, match="prompt 0: the message of the assistant's .* is no text"):
        chat_table(template, [asked, *parts])


def test_a_template_that_raises_names_the_prompt():
    template = "{% if messages[0].role != 'user' %}{{ raise_exception('users begin') }}{% endif %}"
    good, bad = [{"role": "user", "content": "a"}], [{"role": "system", "content": "b"}]
    with pytest.raises(ValueError, match=r"prompt 1: the chat template refuses \[.*'b'.*TemplateError: users begin"):
        chat_table(template + "x", good, bad)
    with pytest.raises(ValueError, match="the pinned prompt: the chat template refuses"):
        chat_table(template + "x", good).add(bad)


def test_a_character_that_the_tokenizer_cannot_spell_names_the_prompt():
    with pytest.raises(ValueError, match="prompt 1: the tokenizer cannot encode 'x'"):
        PromptTable(["a", "x"], TOKENIZER, MDP)


def test_long_and_empty_prompts():
    with pytest.raises(ValueError, match="prompt 1, 'abca', has 4 tokens, more than max_prompt_tokens=3"):
        PromptTable(["a", "abca"], TOKENIZER, MDP)
    assert PromptTable(["abcd"], TOKENIZER, MDP, truncate=True).observations(0).tolist() == [1, 2, 3, 5, 5]
    assert PromptTable([""], TOKENIZER, MDP).observations(0).tolist() == [5, 5, 4, 5, 5]
    with pytest.raises(ValueError, match="no BOS token"):
        PromptTable([""], TOKENIZER, TextMDP(5, 3, 2, (4,)))
