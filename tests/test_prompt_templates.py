"""Templates: questions and examples written out by hand, and what is refused."""

import pytest

from textgym.prompt_templates import Template
from textgym.prompts import Prompt

SUM, OTHER = Prompt("1+2=", {"reference": "3", "n": 2}), Prompt("4+4=", {"reference": ["8", "eight"], "n": 5})
COLUMNS = SUM.columns
CHAT = Prompt([{"role": "user", "content": "1+2?"}], {"reference": "3"})


def turns(*contents):
    """A chat in which user and assistant take turns."""
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(contents)]


@pytest.mark.parametrize(
    ("template", "alone", "with_example"),
    [
        ("plain", "1+2=", "4+4= 8\n1+2="),
        ("qa", "Question: 1+2=\nAnswer:", "Question: 4+4=\nAnswer: 8\n\nQuestion: 1+2=\nAnswer:"),
        ("chat", turns("1+2="), turns("4+4=", "8", "1+2=")),
        ("{n}: {prompt} -> {reference};", "2: 1+2= ->", "5: 4+4= -> 8;2: 1+2= ->"),
        ("{{{prompt}}}\n{reference}", "{1+2=}\n", "{4+4=}\n8{1+2=}\n"),
        ("{prompt}{reference} ({reference})\n", "1+2=", "4+4=8 (8)\n1+2="),
        (
            turns("Add: {prompt}", "The sum is {reference}"),
            turns("Add: 1+2=", "The sum is"),  # the completion goes on with the assistant's message
            turns("Add: 4+4=", "The sum is 8", "Add: 1+2=", "The sum is"),
        ),
    ],
)
def test_what_is_written(template, alone, with_example):
    made = Template(template, columns=COLUMNS)
    assert made.ask([], SUM) == alone and made.ask([OTHER], SUM) == with_example
    assert made.is_chat == isinstance(alone, list) and made.has_answer


def test_an_instruction_stands_before_everything():
    assert Template("plain", "Add.").ask([OTHER], SUM) == "Add.\n\n4+4= 8\n1+2="
    system = {"role": "system", "content": "Add {well}."}  # it has no fields
    assert Template("chat", "Add {well}.").ask([OTHER], SUM) == [system, *turns("4+4=", "8", "1+2=")]


def test_a_template_without_an_answer_is_an_instruction_alone():
    made = Template("Answer briefly: {prompt} ")
    assert not made.has_answer and made.ask([], SUM) == "Answer briefly: 1+2= "


def test_an_answer_in_another_column():
    row = Prompt("1+2=", {"reference": "wrong", "solution": "3"})
    assert Template("{prompt}{reference}\n", column="solution", columns=row.columns).ask([row], SUM) == "1+2=3\n1+2="


def test_prompts_that_are_chats_take_the_place_of_their_message():
    other = Prompt(turns("4+4?", "Well?", "Yes."), {"reference": "8"})
    assert Template("chat").ask([other], CHAT) == turns("4+4?", "Well?", "Yes.", "8", "1+2?")
    begun = Prompt(turns("1+2?", "It is "), {"reference": "3"})
    assert Template("chat").ask([CHAT], begun) == turns("1+2?", "3", "1+2?", "It is ")
    with pytest.raises(ValueError, match="ends with the assistant's message is no example"):
        Template("chat").ask([begun], CHAT)


def test_what_the_system_says_stands_once_at_the_front():
    system = {"role": "system", "content": "Add."}
    rows = [Prompt([system, *turns(text)], {"reference": "8"}) for text in ("4+4?", "1+2?")]
    assert Template("chat").ask(rows[:1], rows[1]) == [system, *turns("4+4?", "8", "1+2?")]
    assert Template([system, *turns("{prompt}", "{reference}")]).ask([OTHER], SUM) == [
        system,
        *turns("4+4=", "8", "1+2="),
    ]
    with pytest.raises(ValueError, match="an instruction is given, but there is a message of the system's, too"):
        Template("chat", "Multiply.").ask(rows[:1], rows[1])


def test_what_is_asked_is_not_changed():
    rows = [Prompt(turns(text), {"reference": "8"}) for text in ("4+4?", "1+2?")]
    Template("chat").ask(rows[:1], rows[1])[0]["content"] = "changed"
    assert rows[0].content == turns("4+4?")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "plian",
            "'plian' has no field such as {prompt}; did you mean 'plain'.* with a name are .'chat', 'plain', 'qa'.",
        ),
        (
            "{promt} {reference}",
            "has the field {promt}; did you mean 'prompt'.* fields are .'prompt', 'reference', 'n'.",
        ),
        ("{prompt.columns} {reference}", r"has the field {prompt.columns}.* fields are"),
        ("{prompt!r} {reference}", "has the field {prompt} with a format; a field is a name alone"),
        ("{prompt:>9} {reference}", "has the field {prompt} with a format"),
        ("{} {reference}", "has the field {}; fields are"),
        ("{prompt", "a brace by itself is written twice"),
        ([], "is neither a text nor a list of messages"),
        (["{prompt}"], "is neither a text nor a list of messages"),
        ([{"role": "user", "content": 3}], "is neither a text nor a list of messages"),
        (turns("{prompt}{reference}"), "stands once, in the last message, the assistant's"),
        (turns("{prompt}", "{reference}", "Thanks"), "stands once, in the last message"),
        (turns("{prompt}", "{reference} {reference}"), "stands once, in the last message"),
        (turns("{prompt} {reference}", "{n}"), "stands once, in the last message"),
    ],
)
def test_bad_templates(template, message):
    with pytest.raises(ValueError, match=message):
        Template(template, columns=COLUMNS)


@pytest.mark.parametrize("answer", [3, None, [], [3]])
def test_bad_answers(answer):
    with pytest.raises(ValueError, match=r"the example 'x' has .* in the column 'reference'; an answer is a text"):
        Template("plain").ask([Prompt("x", {"reference": answer})], SUM)


def test_the_answers_own_column_is_no_field():
    with pytest.raises(ValueError, match=r"has the field {solution}; fields are \['prompt', 'reference'\]"):
        Template("{prompt} {solution} {reference}", column="solution", columns=["solution"])


def test_a_chat_is_no_part_of_a_text():
    for template in ("plain", turns("Please: {prompt}", "{reference}")):
        with pytest.raises(ValueError, match="a prompt is a chat, .* such as 'chat'"):
            Template(template).ask([], CHAT)
