"""The model card of an exported checkpoint: what it was made from, how, and how good it is.

The head is what the Hugging Face hub reads (`huggingface_hub.ModelCardData`), with the evaluation as a model-index.
What is not known is left out: nothing is asked of the hub, and no text is sampled.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import agents
from scripts.agent_arguments import (
    COMMANDS,
    OPTIMIZERS,
    EnvArgs,
    RunArgs,
    command_name,
    written_arguments,
)
from scripts.command_line import versions
from scripts.experiments.entries import shell_command
from scripts.typed_arguments import is_json
from textgym.evaluation.history import SEVERAL, SINGLE, numbers
from textgym.language_models.adapters import adapter_base
from textgym.language_models.adapters.files import CONFIG, read_config
from textgym.sb3.checkpoints import AgentState

HUB_IDS = {"smollm2-q4": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Where models that are known here by another name are on the hub; `base_model` can be nothing else."""
LICENCES = {"tiny": "mit", "tiny-tasks": "mit", "smollm2-q4": "apache-2.0"}
"""Licences of the models that have a name here, as the hub abbreviates them."""
OF_THE_FILES = {"base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping", "peft_version"}
"""Fields of a `PeftConfig` that do not say how adapters are trained."""


@dataclass(frozen=True)
class Exported:
    """What a card is about.

    Attributes:
        name: of the model.
        base: what it was trained from; None where that is not known.
        licence: as the hub abbreviates it; None where it is not known.
        folder: of the checkpoint, or of the plain model.
        state: of the checkpoint; None for a plain model.
        evaluation: what `scripts/evaluate.py --json` wrote, if there is any.
    """

    name: str
    base: str | None
    licence: str | None
    folder: Path
    state: AgentState | None
    evaluation: dict[str, Any] | None


def read_evaluation(file: Path) -> dict[str, Any]:
    """An evaluation from its file.

    Raises:
        ValueError: it is none of `scripts/evaluate.py --json`.
    """
    try:
        evaluation = json.loads(file.read_text(encoding="utf-8"))
        numbers(evaluation), evaluation["env_id"], evaluation["samples"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is not what `scripts/evaluate.py --json` writes: {error!r}") from error
    return evaluation


def base_of(folder: Path, state: AgentState | None) -> str | None:
    """What a checkpoint was trained from, as far as it tells: the model beneath its adapters, or its reference."""
    if (folder / CONFIG).is_file() and not (folder / "base").is_dir():
        return adapter_base(folder)
    return state.reference if state else None


def card(exported: Exported) -> ModelCard:
    """The card, head and body."""
    base, state, evaluation = exported.base, exported.state, exported.evaluation
    env_id = state.env_id if state else None
    tags = ["textgym", "reinforcement-learning", env_id, state and command_name(getattr(agents, state.algorithm))]
    hub_id = HUB_IDS.get(base or "", base if base and base.count("/") == 1 and not Path(base).exists() else None)
    head = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=hub_id,
        license=exported.licence or LICENCES.get(base or ""),
        tags=[tag for tag in tags if tag],
        model_name=exported.name,
        eval_results=[
            EvalResult("reinforcement-learning", evaluation["env_id"], evaluation["env_id"], name, value)
            for name, value in numbers(evaluation).items()
        ]
        if evaluation
        else None,
    )
    sections = {
        "Use": used(exported.name),
        "Training": trained(exported, hub_id) if state else "",
        "Evaluation": evaluated(evaluation) if evaluation else "",
        "Samples": sampled(evaluation["samples"]) if evaluation else "",
        "Versions": ", ".join(f"{name} {v}" for name, v in (state.versions if state else versions()).items()) + ".",
        "Licence": head.license or "That of the base model.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return ModelCard(f"---\n{head}\n---\n\n# {exported.name}\n\n{body}\n")


def used(name: str) -> str:
    """How to load the model."""
    return (
        "```python\nfrom transformers import pipeline\n\n"
        f'generator = pipeline("text-generation", "{name}")  # this folder, or its id on the hub\n'
        'print(generator("The", max_new_tokens=32)[0]["generated_text"])\n```'
    )


def trained(exported: Exported, hub_id: str | None) -> str:
    """From what, where, how long, and with which settings."""
    state = exported.state
    assert state is not None
    base = f"[{hub_id}](https://huggingface.co/{hub_id})" if hub_id else f"`{exported.base}`" if exported.base else None
    told = f"{base or 'A model'} was trained with TextGym's {state.algorithm} on the env `{state.env_id}`, for "
    told += f"{state.num_timesteps:,} tokens in {state.iterations:,} rollouts and {state.n_updates:,} gradient steps."
    left_out = [f"`{name}` (a function)" for name in state.functions]
    left_out += [f"the env's wrapper `{name}`" for name in state.wrappers]
    left_out += ["the arguments of the env (objects)"] if state.env_kwargs is None else []
    left_out += [] if state.optimizer.lower() in OPTIMIZERS else [f"the optimizer, {state.optimizer}"]
    but = f", but for {' and '.join(left_out)}" if left_out else ""
    return f"{told} These are its settings as a command{but}:\n\n```bash\n{command(exported)}\n```"


def command(exported: Exported) -> str:
    """The command line of `scripts/train.py` that gives a checkpoint's settings, those that are defaults left out."""
    state = exported.state
    assert state is not None
    agent = getattr(agents, state.algorithm)
    name, written = command_name(agent), written_arguments(agent)
    given = state.arguments | state.arguments["policy_kwargs"] | {"model": exported.base}
    if (exported.folder / CONFIG).is_file():
        given["peft"] = peft_arguments(exported.folder)
    options: dict[str, Any] = {n: given[n] for n in written if n in given and n not in state.functions}
    for option, value in options.items():
        if is_json(written[option]) and value is not None:
            options[option] = json.dumps(value)
    rows = {option: given[option] for option in ("n_envs", "num_generations")}
    env = EnvArgs(str(state.env_id), env_kwargs=json.dumps(state.env_kwargs or {}), **rows)
    if (optimizer := state.optimizer.lower()) in OPTIMIZERS:
        options["optimizer"] = optimizer
    return shell_command(COMMANDS[name](RunArgs(Path(), state.num_timesteps), env, **options))


def peft_arguments(folder: Path) -> dict[str, Any]:
    """What a folder's adapters are made with, where it is not the default of their kind."""
    config = read_config(folder)
    defaults, own = type(config)().to_dict(), config.to_dict()
    changed = {name: value for name, value in own.items() if value != defaults[name] and name not in OF_THE_FILES}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in changed.items()}
    return {"peft_type": own["peft_type"].value, **plain}


def evaluated(evaluation: Mapping[str, Any]) -> str:
    """The table of an evaluation's numbers."""
    found = {name: evaluation[name] for name in SINGLE}
    found |= {f"{prefix}{name}": v for field, prefix in SEVERAL.items() for name, v in evaluation[field].items()}
    rows = ["| | mean | standard error | 95% interval |", "|---|---|---|---|"]
    for name, value in found.items():
        if isinstance(value, Mapping) and value["value"] is not None:
            error, low, high = (
                "" if value[x] is None else f"{value[x]:.4f}" for x in ("standard_error", "low", "high")
            )
            rows.append(f"| {name} | {value['value']:.4f} | {error} | {f'{low} to {high}' if low else ''} |")
        elif isinstance(value, float):
            rows.append(f"| {name} | {value:.4f} | | |")
    return (
        f"{evaluation['episodes']} fresh texts in `{evaluation['env_id']}` (arguments "
        f"`{json.dumps(evaluation.get('env_kwargs', {}))}`), with the KL to `{evaluation.get('reference')}`, measured "
        "by `scripts/evaluate.py`. KL is in nats per text, entropy in nats per token, length in tokens.\n\n"
        + "\n".join(rows)
    )


def sampled(samples: list[Mapping[str, Any]]) -> str:
    """Texts of the evaluation, indented, so that nothing in them is read as Markdown."""
    texts = (f"[{one['prompt']}]{one['completion']}\nreward {one['reward']:+.3f}" for one in samples)
    return "\n\n".join(textwrap.indent(text, "    ", lambda line: True) for text in texts)
