"""Tags, ValidJSON and Compiles: what has the form, what has not, and texts made to break a parser."""

import json
import sys
import warnings

import pytest

from textgym.scorers import Compiles, Tags, ValidJSON
from textgym.testing import check_scorer, make_generations

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def rewards(scorer, *completions, prompt=""):
    return scorer.evaluate(make_generations([prompt] * len(completions), completions)).rewards.tolist()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>Two.</think>2", 1),
        (" \n<think>\nTwo.\n</think>\n\n2\n", 1),
        ("<think></think>2", 1),
        ("<think>a < b > c <b>bold</b></think> 2", 1),
        ("<think>Two.</think>", 0),
        ("<think>Two.</think> \n", 0),
        ("2", 0),
        ("", 0),
        ("So <think>Two.</think>2", 0),
        ("<think>Two. 2", 0),
        ("Two.</think>2", 0),
        ("<think><think>Two.</think>2", 0),
        ("<think>Two.</think>2</think>", 0),
        ("<think>Two.</think>2<think>", 0),
        ("</think>Two.<think>2", 0),
        ("<Think>Two.</Think>2", 0),
        ("<think >Two.</think>2", 0),
    ],
)
def test_thoughts_and_then_an_answer(text, value):
    assert rewards(Tags(), text) == [value]


def test_several_sections():
    both = Tags(["reasoning", "answer"], answer=False)
    right = "<reasoning>a</reasoning>\n<answer>b</answer>\n"
    assert rewards(both, right, right + "c", "<answer>b</answer><reasoning>a</reasoning>") == [1, 0, 0]
    assert rewards(both, right.replace("\n", ""), right.replace("\n", "so", 1), right + right) == [1, 0, 0]
    assert rewards(Tags(["reasoning", "answer"]), right, right + "c") == [0, 1]
    assert rewards(Tags("思考"), "<思考>二</思考>2") == [1]


def test_a_section_that_the_prompt_opens():
    opened = Tags(opened=True)
    assert rewards(opened, "Two.</think>2", "</think>2", "<think>Two.</think>2", "2", "", prompt="<think>") == [
        1,
        1,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize(
    "tags", ["", [], [""], ["a", "a"], "<think>", "a b", "a/", 3, ["a", 1], None, {"a": "b"}], ids=repr
)
def test_tags_that_are_none(tags):
    with pytest.raises(ValueError, match="scorer 'tags': tags is .*; it must be the name of a tag"):
        Tags(tags)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        (' \n[1, 2.5e3, null, true, "é\\u00e9"]\n', 1),
        ("12", 1),
        ('"我喜欢"', 1),
        ('{"a": 1, "a": 2}', 1),
        ("", 0),
        ("{'a': 1}", 0),
        ('{"a": 1,}', 0),
        ('{"a": 1} so', 0),
        ('```json\n{"a": 1}\n```', 0),
        ("NaN", 0),
        ("[-Infinity]", 0),
        ("01", 0),
        ('"a\nb"', 0),
        ("9" * 4300, 1),
        ("9" * 4301, 0),
        ("[" * 128 + "]" * 128, 1),
        ("[" * 129 + "]" * 129, 0),
        ('{"a":' * 128 + "1" + "}" * 128, 1),
        ('{"a":' * 129 + "1" + "}" * 129, 0),
        ('[[1], {"a": ' + "[" * 126 + "]" * 126 + "}]", 1),
        ('[[1], {"a": ' + "[" * 127 + "]" * 127 + "}]", 0),
        ("[" * 5000, 0),
        ("[" * 5000 + "]" * 5000, 0),
        ('{"a":' * 2000 + "1" + "}" * 2000, 0),
    ],
)
def test_what_is_json(text, value):
    assert rewards(ValidJSON(), text) == [value]


def test_a_schema(tmp_path):
    texts = ['{"name": "Ada", "age": 36}', '{"name": "Ada"}', '{"age": 36}', '{"name": "Ada", "age": -1}', "[]", "{"]
    assert rewards(ValidJSON(PERSON), *texts) == [1, 1, 0, 0, 0, 0]
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON))
    assert rewards(ValidJSON(str(path)), *texts) == [1, 1, 0, 0, 0, 0]
    assert rewards(ValidJSON(PERSON, of="text"), '"Ada"}', "36}", prompt='{"name": ') == [1, 0]


def test_the_draft_that_a_schema_names():
    """Tuples are written with `items` up to 2019-09, and with `prefixItems` since."""
    pair = {"items": [{"type": "integer"}, {"type": "string"}]}
    old = ValidJSON({"$schema": "http://json-schema.org/draft-07/schema#", **pair})
    assert rewards(old, '[1, "a"]', '["a", 1]') == [1, 0]
    with pytest.raises(ValueError, match="scorer 'json': schema is no JSON Schema: .* is not of type"):
        ValidJSON(pair)
    new = ValidJSON({"prefixItems": pair["items"]})
    assert rewards(new, '[1, "a"]', '["a", 1]') == [1, 0]


def test_references_stay_within_the_schema():
    tree = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    assert rewards(ValidJSON(tree), "[[], [[]]]", "[[1]]", "[" * 800 + "]" * 800)[:2] == [1, 0]
    draft = ValidJSON({"$ref": "http://json-schema.org/draft-07/schema#"})  # the drafts are in the package
    assert rewards(draft, '{"type": "object"}', '{"type": 1}') == [1, 0]
    for nowhere in ("#/$defs/none", "https://example.com/schema.json"):
        for schema in ({"$ref": nowhere}, {"properties": {"a": {"items": {"$ref": nowhere}}}}):
            with pytest.raises(
                ValueError, match=f"scorer 'json': schema has the reference .*{nowhere[-6:]}', which leads"
            ):
                ValidJSON(schema)


@pytest.mark.parametrize("schema", [{"type": "number of apples"}, {"minimum": "0"}, {"required": "name"}], ids=repr)
def test_a_schema_that_is_none(schema):
    with pytest.raises(ValueError, match=r"scorer 'json': schema is no JSON Schema: .* \(at \$\."):
        ValidJSON(schema)


def test_arguments_that_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="scorer 'json': schema is 3; it must be"):
        ValidJSON(3)
    with pytest.raises(ValueError, match=r"scorer 'json': of is 'prompt'; accepted are \['completion', 'text'\]"):
        ValidJSON(of="prompt")
    with pytest.raises(ValueError, match=r"scorer 'compiles': of is 'prompt'; accepted are \['completion', 'text'\]"):
        Compiles(of="prompt")
    with pytest.raises(ValueError, match="scorer 'tags': opened is 1; it must be True or False"):
        Tags(opened=1)
    path = tmp_path / "none.json"
    with pytest.raises(FileNotFoundError, match="none.json"):
        ValidJSON(str(path))
    path.write_text("{")
    with pytest.raises(ValueError, match="scorer 'json': the file .*none.json' holds no JSON: Expecting"):
        ValidJSON(str(path))
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert rewards(ValidJSON(), "1") == [1]
    with pytest.raises(ImportError, match=r'the package jsonschema is missing: pip install "textgym\[text\]"'):
        ValidJSON({})


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("", 1),
        ("x = 1\n", 1),
        ("def f(x):\n    return y + x\n", 1),
        ("import no_such_module; 1 / 0; exit()", 1),
        ("变量 = 'é'", 1),
        ("pattern = '\\d'", 1),  # a SyntaxWarning
        ("assert (1, 'always true')", 1),  # another one
        ("x = 2**9**9", 1),
        ("def f(x):\n", 0),
        ("x = = 1", 0),
        ("return 1", 0),
        ("break", 0),
        ("if x:\n\ty\n        z", 0),
        ("x = 1\0", 0),
        ("print 'hello'", 0),
        ("The cat sat.", 0),
        ("9" * 10_000, 0),
        ("(" * 10_000, 0),
        ("[" * 5000 + "]" * 5000, 0),
        ("-" * 10_000 + "1", 0),
        ("f'{" * 3000, 0),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_what_python_compiles(source, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rewards(Compiles(of="completion"), source) == [value]


def test_nothing_is_executed(tmp_path):
    path = tmp_path / "written"
    assert rewards(Compiles(), f"open({str(path)!r}, 'w')", "raise SystemExit") == [1, 1]
    assert not path.exists()


def test_prompt_and_completion_compile_together():
    prompt = "def double(x):\n"
    assert rewards(Compiles(), "    return 2 * x", "return 2 * x", "", prompt=prompt) == [1, 0, 0]
    assert rewards(Compiles(of="completion"), "    return 2 * x", "x = 2", prompt=prompt) == [0, 1]


def test_the_annotations_of_this_package_are_not_inherited():
    """`from __future__ import annotations` would let annotations be anything."""
    assert rewards(Compiles(), "def f(x: (yield)): pass", "lambda: (x := 1)") == [0, 1]


def nested(depth):
    return "x = " + "f(" * depth + ")" * depth


@pytest.mark.parametrize("depth", [50, 150])
def test_what_compiles_does_not_hang_on_what_was_compiled_before(depth):
    assert rewards(Compiles(), nested(depth), "(" * 300, nested(depth)) == [1, 0, 1]


@pytest.mark.parametrize("scorer", [Tags(), ValidJSON(), ValidJSON(PERSON), Compiles()], ids=lambda s: s.name)
def test_contract(scorer):
    completions = ["", "<think>a</think>b", '{"name": "cafe\u0301"}', "काम = 1", "我喜欢", "[" * 5000, "a+" * 5000]
    check_scorer(scorer, prompts=["", "x = 1\n"], completions=completions, pickles=True)
