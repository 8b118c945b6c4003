"""The conformance checks pass what is right, and name what is wrong."""

import unicodedata

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401 (registers the ids)
from textgym.envs import TextGenerationEnv
from textgym.scorers import Scorer, ScorerError, Scores
from textgym.testing import check_env, check_scorer, make_generations

LETTERS = {"name": "characters", "alphabet": "abc"}
SMALL = {"tokenizer": LETTERS, "prompts": ["a", "bc", ""], "max_prompt_tokens": 2, "max_new_tokens": 5}


class Steps(Scorer):
    name = "steps"
    per_token = True

    def score(self, generations):
        return generations.lengths


def test_make_generations():
    batch = make_generations(["a", "cc"], ["", "bb"], tokenizer=LETTERS)
    assert batch.observations.tolist() == [[4, 0, 3, 4, 4], [2, 2, 1, 1, 3]]
    assert batch.prompts == ["a", "cc"] and batch.completions == ["", "bb"]
    assert batch.completion_ids == [[3], [1, 1, 3]] and batch.ended.all()
    assert make_generations([""], [""], tokenizer=LETTERS).observations.tolist() == [[3, 3]]  # BOS is EOS here
    assert make_generations([{"prompt": "a", "answer": 1}], [""], tokenizer=LETTERS).columns == {"answer": [1]}
    with pytest.raises(ValueError, match="2 prompts, but 1 completions"):
        make_generations(["a", "b"], ["c"])


def scorer_of(score, **attributes):
    return type("Custom", (Scorer,), {"name": "custom", "score": score, **attributes})()


def test_check_scorer_accepts_functions_and_columns():
    def accuracy(completions, answer):
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    check_scorer(accuracy, prompts=[{"prompt": "1+1=", "answer": "2"}], completions=["2", "3", ""])
    check_scorer(Steps(), pickles=True)


def test_check_scorer_finds_randomness():
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="scorer 'custom', asked again, gives .* for 'The film was' -> ''"):
        check_scorer(scorer_of(lambda self, g: rng.random(len(g))))


def test_check_scorer_finds_dependence_on_the_order():
    with pytest.raises(AssertionError, match="with the rows in reverse order"):
        check_scorer(scorer_of(lambda self, g: np.arange(len(g))))


def test_check_scorer_finds_dependence_on_the_batch():
    with pytest.raises(AssertionError, match="evaluated alone"):
        check_scorer(scorer_of(lambda self, g: g.lengths - g.lengths.max() + len(g)))


@pytest.mark.parametrize(
    ("size", "when"),
    [(2, "evaluated two rows at a time"), (7, "evaluated seven rows at a time"), (1000, "in a batch of 1000 rows")],
)
def test_check_scorer_finds_what_fails_in_batches_of_one_size(size, when):
    with pytest.raises(AssertionError, match=f"scorer 'custom', {when}, gives 1 instead of 0"):
        check_scorer(scorer_of(lambda self, g: np.full(len(g), float(len(g) == size))))


def test_check_scorer_finds_what_reads_the_number_of_the_row():
    with pytest.raises(AssertionError, match="with the rows in reverse order"):
        check_scorer(scorer_of(lambda self, g: g.rows))


def test_check_scorer_finds_a_limit_that_a_long_text_passes():
    def truncated(self, g):
        width = max(map(len, g.completions))
        return [len(text.rstrip()) * (1.0 if width < 5000 else 0.5) for text in g.completions]

    with pytest.raises(AssertionError, match="not beside a long text, gives 12 instead of 6 for .* -> '👩"):
        check_scorer(scorer_of(truncated), completions=["", "ab", "👩🏽‍🚀🎬👍🏽 film"])


def test_check_scorer_finds_unannounced_components():
    def evaluate(self, g):
        values = np.zeros(len(g))
        return Scores(values, {"other": values})

    with pytest.raises(AssertionError, match=r"announces the components \('custom',\), but reports \('other',\)"):
        check_scorer(scorer_of(lambda self, g: [], evaluate=evaluate))


def evaluated(make):
    """A scorer whose rewards and only component are what `make` makes of generations."""
    return scorer_of(lambda self, g: [], evaluate=lambda self, g: Scores(*(lambda v: (v, {"custom": v}))(make(g))))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda g: np.zeros(len(g), np.float32), "the rewards are float32, not float64"),
        (lambda g: [0.0] * len(g), "the rewards are list, not float64"),
        (lambda g: np.zeros((len(g), 1)), r"the rewards of \d+ rows have shape \(\d+, 1\)"),
        (lambda g: np.zeros(1), r"the rewards of \d+ rows have shape \(1,\)"),
        (lambda g: np.full(len(g), np.nan), "the rewards are not finite"),
    ],
)
def test_check_scorer_finds_wrong_types_shapes_and_numbers(values, message):
    with pytest.raises(AssertionError, match=f"scorer 'custom': {message}"):
        check_scorer(evaluated(values))


def test_check_scorer_finds_a_component_of_another_length():
    def evaluate(self, g):
        return Scores(np.zeros(len(g)), {"custom": np.zeros(len(g) + 1)})

    with pytest.raises(AssertionError, match="the component 'custom' of 27 rows have shape"):
        check_scorer(scorer_of(lambda self, g: [], evaluate=evaluate))


@pytest.mark.parametrize(
    "fails",
    [
        lambda text: 1 / len(text),
        lambda text: len(text.encode("latin-1", "strict")),
        lambda text: 1 / (not any(map(unicodedata.combining, text))),
    ],
    ids=["empty", "other scripts", "combining marks"],
)
def test_check_scorer_finds_texts_on_which_a_scorer_fails(fails):
    with pytest.raises(ScorerError, match="scorer 'custom' raised"):
        check_scorer(scorer_of(lambda self, g: [fails(text) for text in g.completions]))


def test_check_scorer_finds_what_unfinished_rows_do_to_others():
    def evaluate(self, g):
        values = np.where(g.ended, g.ended.mean(), 0.0)
        return Scores(values, {"custom": values})

    with pytest.raises(AssertionError, match="beside rows that have not ended, gives 0.518519 instead of 1"):
        check_scorer(scorer_of(lambda self, g: [], evaluate=evaluate))


def test_the_large_batch_and_the_long_text_can_be_left_out():
    sizes, widths = set(), set()

    def score(self, g):
        sizes.add(len(g))
        widths.update(map(len, g.completions))
        return g.lengths

    options = {"prompts": ["", "a"], "completions": ["", "b", "abc"]}
    check_scorer(scorer_of(score), rows=0, longest=0, **options)
    assert sizes == {1, 2, 3, 6} and widths == {0, 1, 3}  # 3 of the 6 rows where every other one has not ended
    check_scorer(scorer_of(score), rows=30, longest=50, **options)
    assert sizes == {1, 2, 3, 6, 30} and widths == {0, 1, 3, 50}


def test_check_scorer_finds_pay_before_the_end():
    def evaluate(self, g):
        values = np.ones(len(g))
        return Scores(values, {"custom": values})

    with pytest.raises(AssertionError, match="does not pay per token, but pays rows that have not ended"):
        check_scorer(scorer_of(lambda self, g: [], evaluate=evaluate))


def test_check_scorer_finds_changed_observations():
    def score(self, g):
        g.observations[:] = 0
        return np.zeros(len(g))

    with pytest.raises(AssertionError, match="changed the observations"):
        check_scorer(scorer_of(score))


def test_check_scorer_finds_what_does_not_pickle():
    with pytest.raises(Exception, match="[Pp]ickle"):
        check_scorer(lambda completions: [0.0] * len(completions), pickles=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scorer": Steps()},
        {"min_new_tokens": 2},
        {"banned_tokens": [0]},
        {"scorer": {"name": "weighted_sum", "scorers": [{"name": "regex", "pattern": "ab"}, "sentiment"]}},
    ],
    ids=["plain", "a token scorer", "min_new_tokens", "banned_tokens", "weighted_sum"],
)
def test_check_env(arguments):
    check_env(gym.make("TextGen-v0", **SMALL, **arguments))


def test_check_env_on_a_registered_id():
    check_env(gym.make("TextGenChars-v0"))


def broken(**methods):
    return type("Broken", (TextGenerationEnv,), methods)(**SMALL)


def changed_step(change):
    """A step whose results `change(env, results)` spoils."""
    return broken(step=lambda self, action: tuple(change(self, list(TextGenerationEnv.step(self, action)))))


def test_check_env_finds_a_shared_buffer():
    def share(env, results):
        return [env._row, *results[1:]]

    with pytest.raises(AssertionError):
        check_env(changed_step(share))


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (1, lambda reward: reward + 1.0, "reward 1.0 before the end"),
        (2, lambda ended: False, "terminated is False after"),
        (3, lambda truncated: True, "truncated is True|truncates after"),
        (4, lambda info: {**info, "text": "abc"}, r"info\['text'\] is 'abc'; info holds numbers only"),
        (4, lambda info: {}, r"info at the end has no \['eos', 'prompt_id', 'sentiment'\]"),
    ],
)
def test_check_env_finds_broken_rules(index, value, message):
    def change(env, results):
        results[index] = value(results[index])
        return results

    with pytest.raises(AssertionError, match=message):
        check_env(changed_step(change))


def test_check_env_finds_a_step_after_the_end():
    def step(self, action):
        if not self._running:
            return self._row.copy(), 0.0, True, False, {}
        return TextGenerationEnv.step(self, action)

    with pytest.raises(AssertionError, match="a step after the end does not raise"):
        check_env(broken(step=step))


def test_check_env_needs_the_attributes():
    with pytest.raises(AssertionError, match="CartPoleEnv has no attribute 'mdp'"):
        check_env(gym.make("CartPole-v1"))
