"""What a scorer is given of texts and chats."""

from textgym.scorers import FunctionScorer
from textgym.testing import make_generations
from textgym.tokenizers import byte_tokenizer

ASKED, BEGUN = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "It is"}


def batch():
    tokenizer = byte_tokenizer().to_pretrained()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
    )
    return make_generations([[ASKED], [ASKED, BEGUN], "hi"], ["yes", " late", "!"], tokenizer=tokenizer)


def test_texts_and_chats():
    generations = batch()
    assert generations.texts == ["[user]hi[a]yes", "[user]hi[assistant]It is late", "hi!"]
    assert generations.completions == ["yes", " late", "!"]
    assert generations.chats == [[ASKED], [ASKED], [ASKED]]
    replies = ["yes", "It is late", "!"]  # as TRL passes a message that the prompt begins
    assert generations.replies == [[{"role": "assistant", "content": text}] for text in replies]


def test_conversational_functions_get_the_whole_message():
    def score(prompts, completions):
        return [len(p) + len(c[0]["content"]) / 100 for p, c in zip(prompts, completions, strict=True)]

    assert FunctionScorer(score, conversational=True).score(batch()) == [1.03, 1.1, 1.01]


def test_a_message_of_its_own_does_not_begin_with_the_space_after_the_prompt():
    words = {"name": "words", "words": ["the", "film", "good"]}
    generations = make_generations(["the film"], ["good"], tokenizer=words)
    assert generations.completions == [" good"] and generations.replies[0][0]["content"] == "good"


def test_lists_are_made_anew():
    generations = batch()
    for name in ("prompts", "completions", "texts", "completion_ids", "chats", "replies"):
        before = getattr(batch(), name)
        getattr(generations, name).clear()
        assert getattr(generations, name) == before
    generations.completion_ids[0].pop()
    assert generations.completion_ids == batch().completion_ids
