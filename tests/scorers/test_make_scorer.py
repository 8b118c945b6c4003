"""Names, dicts, import strings and objects become scorers."""

import json
import sys

import pytest

from textgym.scorers import FunctionScorer, Scorer, Sentiment, Threshold, WeightedSum, make_scorer
from textgym.testing import make_generations

BATCH = make_generations(["a", "b"], ["good", "bad art"])
MODULE = """
from textgym.scorers import Scorer

def brevity(completions):
    return [-float(len(c)) for c in completions]

class Constant(Scorer):
    def __init__(self, value=1.0, *, name="constant"):
        self.value, self.name = value, name
    def score(self, generations):
        return [self.value] * len(generations)

built = Constant(3.0)
number = 3
class Other: pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)


def rewards(spec):
    return make_scorer(json.loads(json.dumps(spec))).evaluate(BATCH).rewards.tolist()


def test_objects():
    scorer = Sentiment()
    assert make_scorer(scorer) is scorer
    assert isinstance(make_scorer(Sentiment), Sentiment)
    assert isinstance(make_scorer(lambda completions: [0]), FunctionScorer)


def test_a_name():
    assert isinstance(make_scorer("sentiment"), Sentiment)


def test_a_dict():
    assert rewards({"name": "keyword", "words": ["good"]}) == [1.0, 0.0]
    assert rewards({"name": "length", "target": 5}) == [0.0, -0.6]


def test_component_name():
    scorer = make_scorer({"name": "keyword", "words": "good", "component_name": "praise"})
    assert scorer.component_names == ("praise",)


def test_nested_dicts():
    spec = {
        "name": "weighted_sum",
        "scorers": [
            {"name": "threshold", "scorer": {"name": "length", "target": 5}, "at": -0.5},
            {"name": "keyword", "words": "art"},
        ],
        "weights": [1.0, 2.0],
    }
    scorer = make_scorer(spec)
    assert isinstance(scorer, WeightedSum) and isinstance(scorer.scorers[0], Threshold)
    assert scorer.component_names == ("length>=-0.5", "length", "keyword")
    assert rewards(spec) == [1.0, 2.0]


@pytest.mark.usefixtures("module")
def test_import_strings():
    assert rewards("my_rewards:brevity") == [-4.0, -7.0]
    assert rewards("my_rewards:Constant") == [1.0, 1.0]
    assert rewards("my_rewards:built") == [3.0, 3.0]
    assert rewards({"name": "my_rewards:Constant", "value": 2.0}) == [2.0, 2.0]
    assert rewards({"name": "function", "function": "my_rewards:brevity"}) == [-4.0, -7.0]
    talk = make_scorer({"name": "my_rewards:brevity", "conversational": True, "component_name": "short"})
    assert isinstance(talk, FunctionScorer) and talk.conversational and talk.name == "short"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sentimnt", r"unknown scorer 'sentimnt'; did you mean 'sentiment'.*; accepted are .*'keyword'"),
        ({"name": "regx", "pattern": "a"}, r"unknown scorer 'regx'; did you mean 'regex'"),
        ({"pattern": "a"}, r"the scorer \{'pattern': 'a'\} has no 'name'"),
        (None, r"a scorer cannot be None \(NoneType\); accepted are one of"),
        (
            "keyword",
            r"scorer 'keyword' needs the arguments \['words'\]; accepted are \['words', 'case_sensitive', 'comp",
        ),
        ({"name": "keyword", "word": "a"}, r"takes no argument 'word'; did you mean 'words'\?; accepted are \['words'"),
        ({"name": "regex", "pattern": "("}, r"scorer 'regex': '\(' is not a regular expression: missing \)"),
        ("no_such_module:f", r"scorer 'no_such_module:f': there is no module 'no_such_module'"),
        ("my_rewards.py:brevity", r"modules are named without .py, did you mean 'my_rewards:brevity'\?"),
        ("some/folder.py:f", r"did you mean 'some.folder:f'\?"),
        ("no_such_module:f", r"found in the working directory, '/.*', and in the folders of PYTHONPATH"),
        ("my_rewards.brevity", r"a function of your own is 'module:function'"),
        (":x", "scorer ':x' is no import string; one is 'module:attribute'"),
        ("my_rewards:", "scorer 'my_rewards:' is no import string"),
        (".my_rewards:x", "scorer '.my_rewards:x' is no import string"),
        ({"name": "function", "function": "brevity"}, "scorer function 'brevity' is no import string"),
        ({"name": "my_rewards:brevity", "conversational": "no"}, "conversational is 'no'; it must be True or False"),
        ({"name": "keyword", "words": "a", "case_sensitive": 1}, "case_sensitive is 1; it must be True or False"),
        ({"name": "regex", "pattern": 3}, "scorer 'regex': pattern is 3; it must be a text"),
        ({"name": "regex", "pattern": None}, "scorer 'regex': pattern is None; it must be a text"),
        ({"name": "length", "target": 0}, "scorer 'length': target is 0; it must be an integer of at least 1"),
        ({"name": "length", "target": "8"}, "scorer 'length': target is '8'; it must be an integer of at least 1"),
        ({"name": "length", "target": 2.5}, "scorer 'length': target is 2.5; it must be an integer of at least 1"),
        ({"name": "length", "target": True}, "scorer 'length': target is True; it must be an integer of at least 1"),
        ({"name": "length", "target": 8, "component_name": 3}, "cannot be named 3"),
        ({"name": "keyword", 3: "a"}, "scorer 'keyword' takes no argument 3"),
        ({"name": "log_prob", "dtype": "fp16"}, "scorer 'log_prob': unknown dtype 'fp16'; accepted: float32"),
        ("my_rewards:brevty", r"module 'my_rewards' has no 'brevty'; did you mean 'brevity'"),
        ("my_rewards:number", r"scorer 'my_rewards:number' is 3; it must be a function"),
        ("my_rewards:Other", r"the class 'my_rewards:Other' is no textgym.Scorer"),
        ({"name": "my_rewards:built", "value": 1}, r"'my_rewards:built' is built already, .* got \['value'\]"),
        ({"name": "my_rewards:brevity", "function": "a:b"}, r"is a function already"),
        ({"name": "my_rewards:Constant", "valu": 1}, r"no argument 'valu'; did you mean 'value'"),
    ],
)
@pytest.mark.usefixtures("module")
def test_mistakes_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        make_scorer(spec)


def test_a_type_error_inside_a_constructor_stays_itself():
    class Broken(Scorer):
        name = "broken"

        def __init__(self):
            len(3)

        def score(self, generations):
            return []

    with pytest.raises(TypeError, match="has no len"):
        make_scorer(Broken)


def test_a_class_without_a_constructor():
    class Zero(Scorer):
        name = "zero"

        def score(self, generations):
            return [0] * len(generations)

    assert make_scorer(Zero).evaluate(BATCH).rewards.tolist() == [0, 0]
