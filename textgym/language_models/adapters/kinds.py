"""The kinds of adapters: `TRAINED` has one entry per kind that an agent can train, `READ` names all that can be loaded.

The configurations of peft have dozens of fields, and new ones with every release. A field that is not known to leave
the model beneath the adapters as it is, and to need nothing of the training loop, must have its default; so what a
later peft adds is refused by name until somebody has looked at it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from textgym.arguments import Count, NonNegative, Range, check_argument


@dataclass(frozen=True)
class Kind:
    """A kind of adapters that can be trained.

    Attributes:
        config: the name of its configuration class in peft.
        defaults: fields that are given these values where the user leaves them out (None).
        free: fields that may have any value.
        free_when_loaded: further ones for adapters that were loaded with the model: then the reference is a copy of the
            whole model, and not the model with its adapters off.
        accepted: fields of which some values are accepted; of every other field that is not free, its default alone.
        reasons: why a field's other values are refused.
        ranges: types and ranges of fields that peft does not check.
        check: raises a ValueError where fields do not fit together, and peft does not say so.
        finished: why adapters that were loaded with the model cannot be trained further; empty where they can.
    """

    config: str
    defaults: dict[str, Any] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    free_when_loaded: frozenset[str] = frozenset()
    accepted: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, Any] = field(default_factory=dict)
    check: Callable[[Any], None] = lambda config: None
    finished: str = ""


BENEATH = "it changes the model beneath the adapters, which is the reference"
ENCODED = "peft's file holds what the encoder made, and not the encoder, so training could not go on from it"
NOISE = "log-probabilities in sampling and in training must be the same"
BOOKKEEPING = frozenset({"peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"})

MODULES = frozenset({"target_modules", "exclude_modules", "fan_in_fan_out"})
LAYERS = frozenset({"layers_to_transform", "layers_pattern"})
TASK = {"task_type": (None, "CAUSAL_LM")}
REASONS = {
    "inference_mode": "frozen adapters cannot be trained",
    "modules_to_save": BENEATH,
    "task_type": "the model is a causal language model",
}

LORA = Kind(
    config="LoraConfig",
    defaults={"target_modules": "all-linear"},
    free=BOOKKEEPING
    | MODULES
    | LAYERS
    | {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias", "use_bdlora"}
    | {"target_parameters", "trainable_token_indices", "ensure_weight_tying", "runtime_config"},
    free_when_loaded=frozenset({"lora_dropout", "bias", "modules_to_save", "inference_mode", "task_type"}),
    accepted=TASK | {"init_lora_weights": (True, "gaussian", "orthogonal")},
    reasons=REASONS
    | {
        "lora_dropout": NOISE,
        "monteclora_config": f"it adds noise to every forward pass; {NOISE}",
        "bias": BENEATH,
        "init_lora_weights": f"the adapters would not start as the identity, or {BENEATH}",
        "kasa_config": BENEATH,
        "layer_replication": BENEATH,
        "alora_invocation_tokens": "such adapters act in peft's own forward pass alone, so they would never be trained",
        "arrow_config": "it routes between several adapters, and one is trained here",
        "velora_config": "its gradients are approximations, with a state that checkpoints do not hold",
        "use_qalora": "it is for quantised weights, and a policy's are floating-point numbers",
        "megatron_config": "layers of Megatron are not supported",
    },
)


def _check_ranks(config: Any) -> None:
    if config.target_r >= config.init_r:
        raise ValueError(f"target_r={config.target_r}: the mean rank at the end must be below init_r={config.init_r}")


IGNORED = "AdaLoRA ignores it"
ADALORA = Kind(
    config="AdaLoraConfig",
    defaults={"target_modules": "all-linear"},
    free=BOOKKEEPING
    | MODULES
    | LAYERS
    | {"init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "total_step"}
    | {"orth_reg_weight", "lora_alpha", "runtime_config"},
    accepted=TASK,
    reasons=LORA.reasons
    | dict.fromkeys(("use_rslora", "alpha_pattern", "lora_bias", "use_bdlora", "target_parameters"), IGNORED)
    | {
        "init_lora_weights": "AdaLoRA has one start, at which the adapters are the identity",
        "r": f"{IGNORED}: init_r is its rank at the start, target_r the mean rank at the end",
        "rank_pattern": "its training finds the ranks",
        "trainable_token_indices": IGNORED,
    },
    ranges=dict.fromkeys(("init_r", "target_r", "deltaT"), Count)
    | dict.fromkeys(("tinit", "tfinal"), Annotated[int, Range(0)])
    | dict.fromkeys(("beta1", "beta2"), Annotated[float, Range(0, 0.999999, above=True)])
    | {"orth_reg_weight": NonNegative},
    check=_check_ranks,
    finished="the importance of their ranks, which the schedule needs, is in no file of peft's",
)

IA3 = Kind(
    config="IA3Config",
    free=BOOKKEEPING | MODULES | {"feedforward_modules"},
    free_when_loaded=frozenset({"modules_to_save", "inference_mode", "task_type"}),
    accepted=TASK,
    reasons=REASONS | {"init_ia3_weights": "the adapters would not start as the identity"},
)

READ_OFF_THE_MODEL = frozenset({"token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules"})
VIRTUAL_TOKENS = Kind(
    config="",
    defaults={"task_type": "CAUSAL_LM"},
    free=BOOKKEEPING | READ_OFF_THE_MODEL | {"num_virtual_tokens"},
    free_when_loaded=frozenset({"inference_mode"}),
    accepted={"task_type": ("CAUSAL_LM",)},
    reasons=REASONS | {"task_type": "of any other task, peft's forward pass would leave the virtual tokens out"},
    ranges={"num_virtual_tokens": Count},
)
PROMPT_TUNING = dataclasses.replace(
    VIRTUAL_TOKENS,
    config="PromptTuningConfig",
    free=VIRTUAL_TOKENS.free | {"prompt_tuning_init_text", "tokenizer_name_or_path"},
    accepted=VIRTUAL_TOKENS.accepted | {"prompt_tuning_init": ("RANDOM", "SAMPLE_VOCAB", "TEXT")},
    reasons=VIRTUAL_TOKENS.reasons
    | {
        "prompt_tuning_init": "peft knows no such start",
        "tokenizer_kwargs": "tokenizers are loaded as those of models are",
    },
)
PREFIX_TUNING = dataclasses.replace(
    VIRTUAL_TOKENS,
    config="PrefixTuningConfig",
    free=VIRTUAL_TOKENS.free | {"encoder_hidden_size"},
    accepted=VIRTUAL_TOKENS.accepted | {"init_weights": (None, "zero")},
    reasons=VIRTUAL_TOKENS.reasons | {"init_weights": "peft knows no such start"} | {"prefix_projection": ENCODED},
)

TRAINED = {
    "LORA": LORA,
    "ADALORA": ADALORA,
    "IA3": IA3,
    "PROMPT_TUNING": PROMPT_TUNING,
    "PREFIX_TUNING": PREFIX_TUNING,
}
NOT_TRAINED = {"P_TUNING": ENCODED}
READ = (*TRAINED, "P_TUNING", "LOHA", "LOKR", "LN_TUNING", "OFT")


def peft_type(config: Any) -> str:
    """The name that peft has for the kind of a configuration, such as `"LORA"`."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def kind_of(name: str) -> Kind:
    """The kind of adapters that a `peft_type` names; a ValueError where it is not one that can be trained."""
    if name not in TRAINED:
        reason = NOT_TRAINED.get(name, "TextGym does not know this kind")
        raise ValueError(f"adapters of the kind {name} cannot be trained: {reason}; accepted: {', '.join(TRAINED)}")
    return TRAINED[name]


def check_trained(config: Any, loaded: bool = False) -> None:
    """Refuse a configuration whose adapters cannot be trained, with a ValueError that names the field and the reason.

    Args:
        config: a configuration of peft.
        loaded: whether the adapters came with the model, trained before.
    """
    kind = kind_of(peft_type(config))
    if type(config).__name__ != kind.config:
        raise ValueError(f"a {type(config).__name__} is not known; accepted is a peft.{kind.config}")
    if loaded and kind.finished:
        raise ValueError(f"adapters of the kind {peft_type(config)}: {kind.finished}")
    free = kind.free | kind.free_when_loaded if loaded else kind.free
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if entry.name in kind.ranges:
            check_argument(entry.name, value, kind.ranges[entry.name])
        if entry.name in free:
            continue
        accepted = kind.accepted.get(entry.name) or (_default(entry),)
        if value not in accepted:
            reason = kind.reasons.get(entry.name, "TextGym does not know this setting")
            raise ValueError(f"{entry.name}={value!r}: {reason}; accepted: {', '.join(map(repr, accepted))}")
    kind.check(config)


def check_read(config: Any, source: Any) -> None:
    """Refuse saved adapters that a plain forward pass of the model would not have, with a ValueError."""
    name = peft_type(config)
    for setting in ("alora_invocation_tokens", "arrow_config", "megatron_config"):  # peft imports a module for the last
        if getattr(config, setting, None):
            name = f"{name} with {setting}"
    if config.is_prompt_learning and config.task_type != "CAUSAL_LM":  # peft's forward pass depends on it
        name = f"{name} without task_type='CAUSAL_LM'"
    if name not in READ:
        raise ValueError(f"{str(source)!r} holds adapters of the kind {name}; accepted: {', '.join(READ)}")


def _default(entry: dataclasses.Field) -> Any:
    return entry.default_factory() if callable(entry.default_factory) else entry.default
