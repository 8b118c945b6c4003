"""Preferences, ratings and demonstrations from files, tables and iterables; errors name the place of what is wrong."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from textgym.preferences import (
    Demonstration,
    Preference,
    Rating,
    read_demonstrations,
    read_preferences,
    read_ratings,
)
from textgym.preferences.comparisons import comparisons_of

PAIRS = [
    {"prompt": "The plot", "chosen": " is good.", "rejected": " is bad.", "margin": 1.5},
    {"prompt": "The cast", "chosen": " is here.", "rejected": " is there.", "tie": True},
]
RATINGS = [{"text": "A fine film.", "rating": 2.0, "ratings": [1, 3]}, {"text": "Dull.", "rating": -1.5}]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_same_pairs_from_a_file_an_iterable_and_a_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    expected = [
        Preference("The plot", " is good.", " is bad.", margin=1.5),
        Preference("The cast", " is here.", " is there.", tie=True),
    ]
    file = written(tmp_path / "pairs.jsonl", PAIRS)
    columns = {"margin": None, "tie": None, "source": "a column of somebody's"}
    table = datasets.Dataset.from_list([columns | row for row in PAIRS])
    for source in (file, str(file), PAIRS, iter(PAIRS), expected, table):
        assert read_preferences(source) == expected
    with pytest.raises(ValueError, match=r"preferences cannot be a DatasetDict with \['train'\]"):
        read_preferences(datasets.DatasetDict(train=table))


def test_the_same_ratings_from_a_file_an_iterable_and_a_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    expected = [Rating("A fine film.", 2.0, ratings=(1, 3)), Rating("Dull.", -1.5)]
    for source in (
        written(tmp_path / "r.jsonl", RATINGS),
        RATINGS,
        expected,
        datasets.Dataset.from_list([{"ratings": None} | row for row in RATINGS]),
    ):
        assert read_ratings(source, scale=(-4, 4)) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"prompt": "The plot", "completion": " is good."}], Demonstration("The plot", " is good.")),
        ([{"completion": "A film."}], Demonstration("", "A film.")),
        ([{"text": "A film.", "rating": 2.0}], Demonstration("", "A film.")),
        ([{"prompt": "p", "completion": "c", "text": "other"}], Demonstration("p", "c")),  # as TRL does
    ],
)
def test_texts_to_learn_have_the_columns_of_trl(tmp_path, rows, expected):
    datasets = pytest.importorskip("datasets")
    for source in (written(tmp_path / "t.jsonl", rows), rows, [expected], datasets.Dataset.from_list(rows)):
        assert read_demonstrations(source) == [expected]


@pytest.mark.parametrize(
    ("first", "row", "message"),
    [
        ({"text": "a"}, {"completion": "b"}, "lacks the column 'text'; its columns are"),
        ({"completion": "a"}, {"text": "b"}, "lacks the column 'completion'; its columns are"),
        ({"completion": "a"}, {"completions": "b"}, "did you mean 'completions'"),
        ({"completion": "a"}, {"completion": " "}, "completion is blank"),
        ({"text": "a"}, {"text": 3}, "completion is 3; it must be a text"),
        ({"prompt": "p", "completion": "a"}, {"completion": "a"}, "lacks the column 'prompt', unlike the row before"),
        ({"completion": "a"}, {"completion": [{"role": "user", "content": "b"}]}, "conversational form, pass"),
    ],
)
def test_what_is_no_text_to_learn_is_refused_with_its_line(tmp_path, first, row, message):
    file = written(tmp_path / "texts.jsonl", [first, row])
    with pytest.raises(ValueError, match="line 2 of .*" + message):
        read_demonstrations(file)
    with pytest.raises(ValueError, match="row 1 of the demonstrations: .*" + message):
        read_demonstrations([first, row])


def test_pairs_with_a_column_rating_are_pairs():
    pairs = [{"chosen": "a", "rejected": "b", "rating": 3.0}]
    assert not len(comparisons_of(pairs, "rows").ratings) and len(comparisons_of(iter(RATINGS), "rows").ratings) == 2


def test_numbers_of_numpy_are_read_as_plain_ones():
    (row,) = read_preferences([{"chosen": "a", "rejected": "b", "margin": np.float32(0.5)}])
    assert row == Preference("", "a", "b", 0.5) and type(row.margin) is float


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "lacks the column 'rejected'; its columns are"),
        ({"prompt": "p", "chosen": "a", "reject": "b"}, "lacks the column 'rejected'; did you mean 'reject'"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same text, 'a'"),
        ({"prompt": "p", "chosen": " \n", "rejected": "a"}, "chosen is blank"),
        ({"prompt": "p", "chosen": "a", "rejected": ""}, "rejected is blank"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt is 3; it must be a text"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"}, "margin is 'big'; it must be at least 0"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin is -1; it must be at least 0"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1, "tie": True}, "a tie has no margin"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "tie": "yes"}, "tie is 'yes'; it must be True or False"),
        ({"chosen": "a", "rejected": "b"}, "lacks the column 'prompt', unlike the row before"),
        ({"prompt": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b"}, "conversational form, pass"),
        ("a text", "it is 'a text', not a row with columns"),
    ],
)
def test_what_is_no_preference_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(ValueError, match=f"line 3 of '.*pairs.jsonl': .*{message}"):
        read_preferences(written(tmp_path / "pairs.jsonl", [*PAIRS, row]))
    with pytest.raises(ValueError, match=f"row 2 of the pairs: .*{message}"):
        read_preferences([*PAIRS, row], name="pairs")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "lacks the column 'rating'"),
        ({"rating": 1.0}, "lacks the column 'text'"),
        ({"text": "", "rating": 1}, "text is blank"),
        ({"text": "a", "rating": "4"}, "rating is '4'; it must be a finite number"),
        ({"text": "a", "rating": True}, "rating is True; it must be a finite number"),
        ({"text": "a", "rating": float("nan")}, "rating is nan; it must be a finite number"),
        ({"text": "a", "rating": 4.5}, "rating is 4.5, outside the scale from -4 to 4"),
        ({"text": "a", "rating": 0, "ratings": [-5, 5]}, "rating is -5, outside the scale from -4 to 4"),
        ({"text": "a", "rating": 1, "ratings": [1, 2]}, "rating is 1, but the mean of its 2 ratings is 1.5"),
        ({"text": "a", "rating": 1, "ratings": [1, "x"]}, "one of ratings is 'x'; it must be a finite number"),
        ({"text": "a", "rating": 1, "ratings": "1"}, "ratings is '1'; it must be a tuple"),
        ({"text": "a", "rating": 1, "prompt": "p"}, "has the column 'prompt', unlike the row before"),
    ],
)
def test_what_is_no_rating_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(ValueError, match=f"line 3 of '.*r.jsonl': .*{message}"):
        read_ratings(written(tmp_path / "r.jsonl", [*RATINGS, row]), scale=(-4, 4))
    with pytest.raises(ValueError, match=f"row 2 of the ratings: .*{message}"):
        read_ratings([*RATINGS, row], scale=(-4, 4))


@pytest.mark.parametrize("lost", range(1, 40))
def test_a_file_that_was_cut_anywhere_in_its_last_line_is_refused(tmp_path, lost):
    file = written(tmp_path / "pairs.jsonl", PAIRS)
    file.write_bytes(file.read_bytes()[: -1 - lost])
    with pytest.raises(ValueError, match="line 2 of '.*pairs.jsonl' is not JSON that can be read"):
        read_preferences(file)


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="preferences: there is no row in"):
        read_preferences(tmp_path / "empty.jsonl")
    with pytest.raises(FileNotFoundError, match="the ratings file '.*gone.jsonl' does not exist"):
        read_ratings(tmp_path / "gone.jsonl")
    with pytest.raises(IsADirectoryError, match="the preferences file '.*' is a directory"):
        read_preferences(tmp_path)
    for source in (3, b"x", {"chosen": "a"}):
        with pytest.raises(ValueError, match="preferences cannot be a"):
            read_preferences(source)


def test_conversations_become_the_texts_of_the_chat_template():
    """The form of TRL's conversational preference rows, against the template by hand."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Backend(WordLevel({"?": 0}, unk_token="?")),
        chat_template="{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
    )

    def says(role, content):
        return [{"role": role, "content": content}]

    row = {"prompt": says("user", "Hi"), "chosen": says("assistant", "Hello!"), "rejected": says("assistant", "No.")}
    assert read_preferences([row], tokenizer=tokenizer) == [Preference("<user>Hi<assistant>", "Hello!", "No.")]
    for wrong in (says("user", "Hello!"), says("assistant", "a") + says("assistant", "b"), []):
        with pytest.raises(ValueError, match="'chosen' is .*; it must be one message of the assistant's"):
            read_preferences([row | {"chosen": wrong}], tokenizer=tokenizer)
    with pytest.raises(ValueError, match="chosen is None; it must be a text"):
        read_preferences([row | {"chosen": says("assistant", None)}], tokenizer=tokenizer)
    with pytest.raises(ValueError, match="row 0 of the preferences: .* the tokenizer has no chat template"):
        read_preferences([row], tokenizer="tiny")
