"""The page docs/scorers.md: written from the code, and what the code's docstrings must say for that."""

import inspect
import json
import re

import pytest

from scripts.scorer_pages import SECTIONS, arguments, example, sections
from scripts.scorer_pages import page as written
from tests.helpers.docs import blocks, page
from textgym.scorers.registry import SCORERS, scorer_class

PAGE = page("scorers")


def test_the_page_is_written_from_the_code():
    assert written() == PAGE, "run `make docs`"


@pytest.mark.parametrize("name", SCORERS)
def test_a_docstring_has_every_section_and_an_example(name):
    cls = scorer_class(name)
    found = sections(cls)
    assert tuple(found) == ("", *SECTIONS) and all(found.values())
    assert found["Example"].count("\n") == 0 and found["Example"].startswith("`{") and found["Example"].endswith("}`")
    form = example(cls)
    assert form.pop("name") == name
    named = {("name" if argument == "component_name" else argument): value for argument, value in form.items()}
    inspect.signature(cls).bind(**named)  # what it needs is there, and nothing that it does not take
    assert {argument.name for argument in arguments(cls)} >= {*form, "component_name"}
    assert all(argument.help for argument in arguments(cls))


def test_every_scorer_is_in_the_table_and_has_an_entry():
    assert re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \|", PAGE, re.M) == list(SCORERS) == sorted(SCORERS)
    assert sorted(re.findall(r"^### (\w+)$", PAGE, re.M)) == sorted(SCORERS)
    forms = [json.loads(block)["name"] for block in blocks(PAGE, "json")]
    assert sorted(forms) == sorted([*SCORERS, "keyword"])  # and one at the top


def test_entries_by_hand():
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))
    assert entries["keyword"].startswith(
        "\n`textgym.scorers.Keyword`. 1.0 if any of the words occurs in the completion as a whole word, else 0.0.\n"
    )
    assert "- **Range**: 0 or 1; 1 is best.\n" in entries["keyword"]
    assert "\n| `words` |  | a text, or a Sequence | the words, or a single one |\n" in entries["keyword"]
    assert "| `dtype` | `None` | a text, a dtype, or `None` |" in entries["log_prob"]
    line = "| [`word_frequencies`](#word_frequencies) | Minus the KL divergence of the completion's frequencies"
    assert line in PAGE and "| [word frequencies](#family-word-frequencies) |" in PAGE
    assert "\n## Family: word frequencies\n" in PAGE
