"""Whole episodes whose prompts are computed once: a prompt's keys and values serve all of its completions.

The same hidden states and gradients as a pass over every row of its own, because a completion's tokens see of their
prompt only its keys and values, and these are differentiated, too. Rows are compared by content, so whoever asks, for
the policy, the reference or a value trunk, shares what can be shared. Left out: models whose cache does not carry
gradients, and gradient checkpointing, with which transformers keeps no cache.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from textgym.language_models.attention import attending, can_attend
from textgym.language_models.forward import is_exhausted, left_aligned, logits_of, whole_rows_hidden
from textgym.language_models.pieces import cheapest_slices, pass_cost
from textgym.language_models.prompt_attention import Group, PromptAttention
from textgym.mdp import TextMDP

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IN_PLACE_FROM = 48
"""Columns of keys and values from which on copying them for each completion costs more than attending in two parts."""

_RIGHT: WeakKeyDictionary[Any, dict[bool, bool]] = WeakKeyDictionary()
"""Whether a model is right without and with reading prompts in place, as far as it was asked."""


def shares_prompts(model: PreTrainedModel, mdp: TextMDP) -> bool:
    """Whether a model computes a prompt of an MDP once for several completions, now.

    Found out at the first call, by comparing hidden states and a gradient with those of whole rows. A prompt of one
    token is not worth it.
    """
    if mdp.max_prompt_tokens == 1 or any(map(_is_checkpointed, model.modules())):
        return False
    is_new = False not in _RIGHT.get(model, {})
    shares = _is_known_right(model, in_place=False)
    if is_new and not shares:
        name = model.name_or_path or type(model).__name__
        warnings.warn(
            f"the key-value cache of the model {name!r} cannot be trained through, so prompts are computed again "
            "for each of their completions",
            stacklevel=2,
        )
    return shares


def reads_in_place(model: PreTrainedModel) -> bool:
    """Whether the completions of a model that shares prompts attend to these without a copy of their own, now.

    Found out at the first call, too.
    """
    return can_attend(model) and _is_known_right(model, in_place=True)


def episode_hidden(model: PreTrainedModel, mdp: TextMDP, rows: torch.Tensor) -> torch.Tensor:
    """The hidden states that the tokens of completions are drawn from, prompts computed once where that is cheaper.

    Args:
        model: a causal LM.
        mdp: the MDP.
        rows: (B, P + T) int64, finished or not.

    Returns:
        (M, H), one per completion token, row by row; M is the number of completion tokens in `rows`.
    """
    if len(rows) > 1 and shares_prompts(model, mdp):
        shared = SharedPrompts(mdp, rows)
        if shared.cost < shared.cost_of_rows:
            return shared.hidden(model, in_place=shared.longest >= IN_PLACE_FROM and reads_in_place(model))
    return whole_rows_hidden(model, mdp, rows)


def episode_logits(model: PreTrainedModel, mdp: TextMDP, rows: torch.Tensor) -> torch.Tensor:
    """Logits of every action of whole episodes in one forward pass.

    Args:
        model: a causal LM.
        mdp: the MDP.
        rows: (B, P + T) int64, finished or not.

    Returns:
        (B, T, V) float32; entry [b, t] belongs to the state before completion token t, and is 0 behind the last one.
    """
    logits = logits_of(model, episode_hidden(model, mdp, rows), mdp.vocab_size)
    result = logits.new_zeros(len(rows), mdp.max_new_tokens, mdp.vocab_size)
    result[rows[:, mdp.max_prompt_tokens :] != mdp.pad_id] = logits
    return result


class SharedPrompts:
    """The distinct prompts of whole episodes, and what it costs to compute each of them once.

    Args:
        mdp: the MDP.
        rows: (B, P + T) int64, finished or not.

    Attributes:
        prompts: (U, P) the distinct ones.
        of_row: (B,) which one each row has.
        longest: tokens of the longest prompt.
        cost: tokens that go through the model so, with padding, and `PASS_COST` for each pass.
        cost_of_rows: the same of one pass over whole rows.
    """

    def __init__(self, mdp: TextMDP, rows: torch.Tensor):
        self.mdp, self.completions = mdp, rows[:, mdp.max_prompt_tokens :]
        self.prompts, self.of_row = rows[:, : mdp.max_prompt_tokens].unique(dim=0, return_inverse=True)
        self.counts = (self.completions != mdp.pad_id).sum(-1)  # (B,)
        fed, self._order = (self.counts - 1).clamp(min=0).sort(stable=True)  # the last token is not fed
        self._cost = pass_cost(rows.device.type)
        several = fed > 0
        self._order, self._fed = self._order[several], fed[several].cpu().numpy()
        of_completions, self._slices = cheapest_slices(self._fed, None, self._cost) if several.any() else (0.0, [])
        lengths = (self.prompts != mdp.pad_id).sum(-1)
        self.longest = int(lengths.max())
        self.cost = len(self.prompts) * self.longest + self._cost + of_completions
        width = int((lengths[self.of_row] + self.counts).max()) - 1
        self.cost_of_rows = len(rows) * width + self._cost

    def hidden(self, model: PreTrainedModel, in_place: bool = False) -> torch.Tensor:
        """The hidden states that the completions' tokens are drawn from.

        Args:
            model: a causal LM that shares prompts.
            in_place: whether its completions read their prompts' keys and values where they are; if not, each has a
                copy.

        Returns:
            (M, H), row by row.
        """
        ids, lengths = left_aligned(self.mdp, self.prompts)  # (U, L)
        cache = DynamicCache()
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        of_prompts = model.base_model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
        last = of_prompts.last_hidden_state[torch.arange(len(ids), device=ids.device), lengths - 1]  # (U, H)
        begun = (self.counts > 0).nonzero().flatten()
        width = self.mdp.max_new_tokens
        # b T + t is the place of the state before token t of row b
        hidden, places = [last[self.of_row[begun]]], [begun * width]
        continued = _beside if in_place else _behind
        for start, end in self._slices:
            rows = self._order[start:end]
            rows = rows[self.of_row[rows].argsort()]
            prompt, steps = self.of_row[rows], torch.arange(int(self._fed[end - 1]), device=ids.device)
            fed = steps < (self.counts[rows] - 1)[:, None]  # (n, Q)
            columns = steps.clamp(max=self.counts[rows][:, None] - 1)
            tokens = self.completions[rows].gather(-1, columns)
            hidden.append(continued(model, cache, lengths, prompt, tokens)[fed])
            places.append((rows[:, None] * width + 1 + steps)[fed])
        return torch.cat(hidden)[torch.cat(places).argsort()]


def _beside(
    model: PreTrainedModel, cache: DynamicCache, lengths: torch.Tensor, prompt: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Hidden states of completions which read the keys and values of their prompts where they are.

    Args:
        model: a causal LM.
        cache: of U prompts.
        lengths: (U,) of the prompts.
        prompt: (n,) which one each completion has, in order.
        tokens: (n, Q) of the completions.

    Returns:
        (n, Q, H).
    """
    present, counts = prompt.unique_consecutive(return_counts=True)
    ends, of_prompts = counts.cumsum(0).tolist(), lengths[present].tolist()
    groups = [Group(*group) for group in zip(present.tolist(), [0, *ends[:-1]], ends, of_prompts, strict=True)]
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    positions = lengths[prompt][:, None] + torch.arange(tokens.shape[1], device=tokens.device)
    with attending(model, PromptAttention(layers, groups)):
        return model.base_model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state


def _behind(
    model: PreTrainedModel, cache: DynamicCache, lengths: torch.Tensor, prompt: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """The same, of completions which have a copy of their prompt's keys and values each."""
    own = DynamicCache()
    for number, layer in enumerate(cache.layers):
        own.update(layer.keys[prompt], layer.values[prompt], number)
    ahead, mask = lengths[prompt][:, None], None
    if len(lengths) > 1 and int(lengths.min()) < int(lengths.max()):
        real = torch.arange(int(lengths.max()), device=prompt.device) < ahead  # (n, L)
        mask = torch.cat([real, real.new_ones(tokens.shape)], 1).long()
    positions = ahead + torch.arange(tokens.shape[1], device=tokens.device)
    return model.base_model(
        input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=own, use_cache=True
    ).last_hidden_state


def _is_checkpointed(module: torch.nn.Module) -> bool:
    return isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing and module.training


def _is_known_right(model: PreTrainedModel, in_place: bool) -> bool:
    known = _RIGHT.setdefault(model, {})
    if in_place not in known:
        known[in_place] = _is_right(model, in_place)
    return known[in_place]


def _is_right(model: PreTrainedModel, in_place: bool) -> bool:
    """Compare the two ways on two prompts of different length with two completions each, of different length."""
    size = model.get_input_embeddings().weight.shape[0]
    pad = size
    mdp = TextMDP(vocab_size=size, max_prompt_tokens=2, max_new_tokens=3, eos_token_ids=(0,), bos_token_id=None)
    first, second = 0, size - 1
    rows = torch.tensor(
        [
            [pad, first, second, first, second],
            [pad, first, first, pad, pad],
            [second, first, second, second, pad],
            [second, first, first, second, first],
        ],
        device=model.device,
    )
    trained = [p for p in model.base_model.parameters() if p.requires_grad][:1]
    with torch.enable_grad():
        try:
            ways = [whole_rows_hidden(model, mdp, rows), SharedPrompts(mdp, rows).hidden(model, in_place)]
            weights = torch.linspace(-1, 1, ways[0].numel(), device=rows.device).view_as(ways[0])
            results = [
                [way.detach(), *(torch.autograd.grad((way * weights).sum(), trained) if trained else ())]
                for way in ways
            ]
        except RuntimeError as error:
            if is_exhausted(error):
                raise
            return False
        except (AttributeError, TypeError, ValueError):
            return False
    low = model.dtype != torch.float32 or torch.is_autocast_enabled(rows.device.type)
    return all(
        bool((shared.float() - whole.float()).norm() <= (5e-2 if low else 1e-3) * whole.float().norm())
        for whole, shared in zip(*results, strict=True)
    )
