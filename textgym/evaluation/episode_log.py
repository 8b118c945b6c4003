"""Logged episodes: a file of JSON lines with all that off-policy evaluation needs, and what makes episodes fit for it.

A line holds one episode: `prompt` (a text or a chat), `prompt_ids`, `completion`, `completion_ids`, `logprobs` (of the
tokens, under what drew them) and `rewards` (per token), with the names of TRL's rollouts; and `columns`, those of the
prompt. So logs of several behaviours may stand one after the other in a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textgym.arguments import accepts
from textgym.envs.task import TextTask
from textgym.files import whole_file
from textgym.importing import did_you_mean
from textgym.mdp import TextMDP
from textgym.text_files import lines_of, parsed
from textgym.training.episodes import Episodes

LISTS = {"prompt_ids": int, "completion_ids": int, "logprobs": float, "rewards": float}
COLUMNS = ("prompt", "completion", *LISTS)


def write_episodes(path: str | Path, episodes: Episodes, task: TextTask) -> None:
    """Write episodes to a file, which is there as a whole or not at all.

    Args:
        path: a file that there was is replaced.
        episodes: finished; what drew them must not have been truncated by top-k or top-p, nor greedy.
        task: of the env that they were drawn in.

    Raises:
        ValueError: a prompt has a column that JSON cannot hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as new, new.open("w", encoding="utf-8") as file:
        for i in range(len(episodes)):
            file.write(_line(episodes.select(i), task) + "\n")


def read_episodes(path: str | Path, task: TextTask) -> Episodes:
    """The episodes of a file, with `log_probs` and `rewards`; values and the reference's log-probabilities are 0.

    Args:
        path: what `write_episodes` wrote, or a file in its form.
        task: of an env with the tokenizer, the prompt form and the lengths of the one that they were drawn in.

    Raises:
        ValueError: a line is no JSON (a file that was cut, say), lacks a column, holds no numbers where they should be,
            or was written with another tokenizer; or an episode that no policy can be weighed on (`check_episodes`).
            The line is named.
        FileNotFoundError: the file does not exist.
        IsADirectoryError: it is a directory.
    """
    places, lines = [], []
    for place, text in lines_of(Path(path), "log"):
        try:
            lines.append(_checked(parsed(text, place), task))
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(place) else f"{place}: {error}") from error
        places.append(place)
    if not lines:
        raise ValueError(f"there is no episode in {str(path)!r}")
    mdp, prompt_ids = task.mdp, np.array([line["prompt_id"] for line in lines])
    rows = np.array(task.prompts.observations(prompt_ids), np.int64)  # (E, P + T)
    lengths = np.array([len(line["completion_ids"]) for line in lines])
    written, real = rows[:, mdp.max_prompt_tokens :], np.arange(mdp.max_new_tokens) < lengths[:, None]  # (E, T)
    written[real] = [token for line in lines for token in line["completion_ids"]]
    numbers = {name: np.zeros(real.shape, np.float32) for name in ("logprobs", "rewards")}
    for name, array in numbers.items():
        array[real] = [number for line in lines for number in line[name]]
    made = Episodes.sampled(
        mdp.pad_id,
        rows=torch.from_numpy(rows),
        prompt_ids=torch.from_numpy(prompt_ids),
        components=torch.zeros(len(rows), 0),
        rewards=torch.from_numpy(numbers["rewards"]),
        sampled_log_probs=torch.from_numpy(numbers["logprobs"]),
        values=torch.zeros(real.shape),
    )
    for place, line, row in zip(places, lines, rows, strict=True):
        if line["completion"] != (text := task.decode_parts(row)[1]):
            raise ValueError(
                f"{place} was written with another tokenizer: its tokens read {text!r} here, not {line['completion']!r}"
            )
    check_episodes(made, mdp, places.__getitem__)
    return made


def _line(episode: Episodes, task: TextTask) -> str:
    """One episode as JSON; the numbers are the shortest that make the same float32."""
    row, mask = episode.rows.cpu().numpy(), episode.mask.cpu().numpy()
    prompt, width = task.prompts.pin(int(episode.prompt_ids)), task.mdp.max_prompt_tokens
    line = {
        "prompt": prompt.pop("prompt"),
        "prompt_ids": row[:width][row[:width] != task.mdp.pad_id].tolist(),
        "completion": task.decode_parts(row)[1],
        "completion_ids": row[width:][mask].tolist(),
        "logprobs": [float(str(x)) for x in episode.log_probs.cpu().numpy()[mask]],
        "rewards": [float(str(x)) for x in episode.rewards.cpu().numpy()[mask]],
        **({"columns": prompt} if prompt else {}),
    }
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the prompt {line['prompt']!r} has a column that JSON cannot hold: {error}") from error


def _checked(line: Any, task: TextTask) -> dict[str, Any]:
    """A line's columns with the id of its prompt, or a ValueError that says what is wrong with it."""
    if not isinstance(line, Mapping):
        raise ValueError(f"it is {line!r}, not an object with {list(COLUMNS)}")
    for name in COLUMNS:
        if name not in line:
            raise ValueError(f"it lacks {name!r}{did_you_mean(name, line)}; it has {list(line)}")
    mdp, tokens = task.mdp, line["completion_ids"]
    for name, kind in LISTS.items():
        given = line[name]
        if not isinstance(given, list) or (wrong := [x for x in given if not accepts(kind, x)]):
            found = f"with {wrong[0]!r} in it" if isinstance(given, list) else repr(given)
            raise ValueError(f"{name} must be a list of {'numbers' if kind is float else 'token ids'}, not {found}")
        if kind is float and len(given) != len(tokens):
            raise ValueError(f"it has {len(given)} {name} for {len(tokens)} completion_ids")
    if not 1 <= len(tokens) <= mdp.max_new_tokens:
        raise ValueError(f"it has {len(tokens)} completion_ids; the env wants 1 to max_new_tokens={mdp.max_new_tokens}")
    if outside := [token for token in tokens if not 0 <= token < mdp.vocab_size]:
        raise ValueError(f"completion_ids contain {outside[0]}; the env's tokenizer has {mdp.vocab_size} tokens")
    if not isinstance(columns := line.get("columns", {}), Mapping):
        raise ValueError(f"columns must be an object, not {columns!r}")
    prompt_id = task.prompts.add({"prompt": line["prompt"], **columns})
    encoded = task.prompts.find([prompt_id])[0].token_ids.tolist()
    if encoded != line["prompt_ids"]:
        raise ValueError(
            f"the policy would read its prompt as the tokens {encoded}, not as prompt_ids {line['prompt_ids']}: the "
            "tokenizer, the chat template or max_prompt_tokens is another one"
        )
    return {**line, "prompt_id": prompt_id}


def check_episodes(episodes: Episodes, mdp: TextMDP, place: Callable[[int], str] = "episode {}".format) -> None:
    """Refuse episodes that no policy of the MDP can be weighed on.

    Args:
        episodes: to be weighed on.
        mdp: the policy's.
        place: what each episode is called.

    Raises:
        ValueError: there are none, or they have another shape or tokens that the env does not have; an episode has a
            token that the env forbids, does not end where it must, or has a log-probability that cannot be one; or all
            log-probabilities are 0.
    """
    mdp.refuse_turns("a log of episodes")
    rows, mask, log_probs = (x.cpu() for x in (episodes.rows, episodes.mask, episodes.log_probs))
    if not len(rows):
        raise ValueError("there are no episodes")
    sizes = rows.shape[1] - mask.shape[1], mask.shape[1]
    if sizes != (mdp.max_prompt_tokens, mdp.max_new_tokens):
        raise ValueError(
            f"the episodes have {sizes[0]} + {sizes[1]} cells for prompt and completion; the env has "
            f"max_prompt_tokens={mdp.max_prompt_tokens} and max_new_tokens={mdp.max_new_tokens}"
        )
    actions = rows[:, mdp.max_prompt_tokens :]
    if (rows > mdp.pad_id).any() or ((actions != mdp.pad_id) != mask).any():
        raise ValueError(f"the episodes were written with another tokenizer; the env's has {mdp.vocab_size} tokens")
    if (empty := ~mask.any(-1)).any():
        raise ValueError(f"{place(int(empty.nonzero()[0]))} has no token")
    is_eos, permits = (torch.from_numpy(x) for x in (mdp.is_eos, mdp.action_masks(np.arange(mdp.max_new_tokens))))
    tokens, steps = actions.clamp(max=mdp.vocab_size - 1), torch.arange(mdp.max_new_tokens)
    ends, last = is_eos[tokens] | (steps == steps[-1]), torch.nn.functional.pad(mask[:, 1:], (0, 1)) != mask
    for wrong, rule in (
        (~permits[steps, tokens], "the env forbids this token there"),
        (
            ends != last,
            f"an end-of-text token or max_new_tokens={mdp.max_new_tokens} ends an episode, and nothing else",
        ),
        (~log_probs.isfinite() | (log_probs > 1e-4), "a token that was drawn has a finite log-probability, at most 0"),
    ):
        if (wrong := wrong & mask).any():
            i, step = wrong.nonzero()[0].tolist()
            what = f"id {tokens[i, step]}, log-probability {log_probs[i, step]:g}"
            raise ValueError(f"{place(i)}, token {step} ({what}): {rule}")
    if not log_probs.any():
        raise ValueError(
            "all log-probabilities of the episodes are 0; what wrote them must not be greedy, and is to be logged with "
            "the log-probabilities of the tokens that it drew"
        )
