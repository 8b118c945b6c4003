"""Scorers of how likely a text is: perplexity, mutual information of prompt and completion, contrast of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textgym.arguments import check_argument
from textgym.scorers.base import FloatArray, Generations, Scorer
from textgym.scorers.language_model import LanguageModel, Pair
from textgym.scorers.reading import Of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from textgym.tokenizers import Tokenizer

Scale = Literal["log", "inverse"]


class Perplexity(Scorer):
    """Minus the logarithm of the completion's perplexity under a reference model, given its prompt.

    It is the mean of the tokens' log-probabilities, (1 / n) sum_t log p(x_t | prompt, x_<t) = -log PPL in nats. The end
    token counts where the completion has one.

    Where the env's tokenizer has the reference's vocabulary, the row's own token ids are read; otherwise its text is
    encoded again, and n counts the reference's tokens. Of an empty completion the end token is read, which is likely
    where the prompt is complete.

    Args:
        model: anything that `textgym.language_models.load_model` accepts.
        tokenizer: anything that `textgym.tokenizers.make_tokenizer` accepts; None is the model's own.
        of: `"completion"`, or `"text"`: the prompt's tokens, too. The first of these is given the begin token, and is
            not counted where the tokenizer has none.
        scale: `"log"`, or `"inverse"`: 1 / PPL, the geometric mean of the tokens' probabilities.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: rows per forward pass at most.
        name: the component's name in `info`.

    Range: at most 0, or in [0, 1] as `"inverse"`; more is likelier.

    Cost: one forward pass of the model per text.

    Source: Jelinek et al. 1977, "Perplexity, a measure of the difficulty of speech recognition tasks"; the value is
        minus the loss that a causal model of transformers gives for `labels`.

    Example: `{"name": "perplexity", "model": "tiny", "scale": "inverse"}`

    Raises:
        ValueError: there is no such model, tokenizer, dtype or device, they do not belong together, or an argument has
            another value than those above.
        ScorerError: when asked, a row is longer than the model reads, or is a chat to a tokenizer without a template.
        ImportError: torch or transformers is missing.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel = "tiny",
        *,
        tokenizer: str | Path | Tokenizer | None = None,
        of: Of = "completion",
        scale: Scale = "log",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "perplexity",
    ):
        check_argument(f"scorer {name!r}: of", of, Of)
        check_argument(f"scorer {name!r}: scale", scale, Scale)
        self.name, self.of, self.scale = name, of, scale
        self.reference = LanguageModel(name, model, tokenizer, device, dtype, batch_size)

    def score(self, generations: Generations) -> FloatArray:
        """(n,) means of log-probabilities, or their exponentials."""
        pairs = self.reference.read(generations)
        if self.of == "text":
            pairs = [self._whole(pair) for pair in pairs]
        counts = np.array([len(tokens) for _, tokens in pairs])
        means = self.reference.log_likelihoods(generations, pairs) / counts
        return means if self.scale == "log" else np.exp(means)

    def _whole(self, pair: Pair) -> Pair:
        ids, start = [*pair[0], *pair[1]], self.reference.tokenizer.bos_token_id
        return ([start], ids) if start is not None and ids[0] != start else (ids[:1], ids[1:])


class MutualInformation(Scorer):
    """The pointwise mutual information of prompt and completion under a language model.

    It is log p(x | c) - log p(x) in nats, for the completion x and its prompt c: how much likelier the prompt makes the
    completion. So it pays for answers that fit this prompt and not any other. p(x) is read after the begin token alone,
    or after a neutral prompt.

    Token ids are those of `perplexity`, the same ones in both terms, so that an empty completion is its end token.

    Args:
        model: anything that `textgym.language_models.load_model` accepts.
        tokenizer: anything that `textgym.tokenizers.make_tokenizer` accepts; None is the model's own.
        neutral_prompt: the text that p(x) is read after, such as "A: "; empty for the begin token.
        average: divide by the number of tokens of the env's completion, EOS included.
        device: where the model runs; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: rows per forward pass at most.
        name: the component's name in `info`.

    Range: any number; 0 where the prompt says nothing about the completion, as for an empty prompt.

    Cost: two forward passes of the model per text, one of them without the prompt.

    Source: Li et al. 2016, "A diversity-promoting objective function for neural conversation models" (arXiv
        1510.03055), equation 9 with lambda = 1; with a neutral prompt Holtzman et al. 2021 (arXiv 2104.08315).

    Example: `{"name": "mutual_information", "model": "tiny", "average": true}`

    Raises:
        ValueError: there is no such model, tokenizer, dtype or device, they do not belong together, an argument has
            another type, or the tokenizer has no begin token and there is no neutral prompt.
        ScorerError: when asked, a row is longer than the model reads, or is a chat to a tokenizer without a template.
        ImportError: torch or transformers is missing.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel = "tiny",
        *,
        tokenizer: str | Path | Tokenizer | None = None,
        neutral_prompt: str = "",
        average: bool = False,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "mutual_information",
    ):
        check_argument(f"scorer {name!r}: neutral_prompt", neutral_prompt, str)
        check_argument(f"scorer {name!r}: average", average, bool)
        self.name, self.average = name, average
        self.reference = LanguageModel(name, model, tokenizer, device, dtype, batch_size)
        self._neutral = self.reference.context(neutral_prompt)

    def score(self, generations: Generations) -> FloatArray:
        """(n,) values."""
        pairs = self.reference.read(generations)
        given = self.reference.log_likelihoods(generations, pairs)
        alone = self.reference.log_likelihoods(generations, [(self._neutral, tokens) for _, tokens in pairs])
        return (given - alone) / (generations.lengths if self.average else 1)


class Contrast(Scorer):
    """How much likelier one language model holds the completion to be than another, given the prompt.

    It is log p_1(x | c) - log p_2(x | c) in nats. With a large model as expert and a small one as amateur it pays for
    what only the large one knows, and not for what is merely frequent; with a finetuned model and its base it is the
    log-ratio that direct preference optimisation takes for a reward.

    Token ids are those of `perplexity`, each model reading its own, so that the two may differ in their tokenizers.

    Args:
        expert: the first model, anything that `textgym.language_models.load_model` accepts.
        amateur: the second one.
        expert_tokenizer: anything that `textgym.tokenizers.make_tokenizer` accepts; None is the model's own.
        amateur_tokenizer: that of the second model.
        average: divide by the number of tokens of the env's completion, EOS included.
        device: where both models run; None is the CPU, or where a loaded model is.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None is float32, or what a loaded model has.
        batch_size: rows per forward pass at most.
        name: the component's name in `info`.

    Range: any number; 0 where both hold it to be equally likely.

    Cost: one forward pass of each model per text.

    Source: the objective of contrastive decoding (Li et al. 2023, arXiv 2210.15097), section 3.1, without its
        constraint.

    Example: `{"name": "contrast", "expert": "smollm2-q4", "amateur": "tiny"}`

    Raises:
        ValueError: there is no such model, tokenizer, dtype or device, they do not belong together, or an argument has
            another type.
        ScorerError: when asked, a row is longer than a model reads, or is a chat to a tokenizer without a template.
        ImportError: torch or transformers is missing.
    """

    def __init__(
        self,
        expert: str | Path | PreTrainedModel,
        amateur: str | Path | PreTrainedModel,
        *,
        expert_tokenizer: str | Path | Tokenizer | None = None,
        amateur_tokenizer: str | Path | Tokenizer | None = None,
        average: bool = False,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        name: str = "contrast",
    ):
        check_argument(f"scorer {name!r}: average", average, bool)
        self.name, self.average = name, average
        sides: list[tuple[Any, Any]] = [(expert, expert_tokenizer), (amateur, amateur_tokenizer)]
        self.expert, self.amateur = (
            LanguageModel(name, model, tokenizer, device, dtype, batch_size) for model, tokenizer in sides
        )

    def score(self, generations: Generations) -> FloatArray:
        """(n,) differences."""
        expert, amateur = (
            model.log_likelihoods(generations, model.read(generations)) for model in (self.expert, self.amateur)
        )
        return (expert - amateur) / (generations.lengths if self.average else 1)
