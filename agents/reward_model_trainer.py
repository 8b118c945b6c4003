"""Reward models from what people prefer: pairs, ties, groups of rejected texts, or ratings.

The interface is that of stable-baselines3 (`learn`, `save`, loggers); names of arguments and of what is logged are
those of TRL's `RewardTrainer` where it has them. Left out: the optimizer's state in what is saved, because a training
takes minutes; a saved model can be trained further.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import configure_logger, get_device, set_random_seed
from tqdm import tqdm

from textgym.arguments import AsJSON, CheckedArguments, Count, Named, NonNegative, Positive, Seed, check_argument
from textgym.files import whole_folder
from textgym.language_models.devices import Device
from textgym.language_models.forward import memory_advice
from textgym.mdp import IntArray
from textgym.preferences.comparisons import comparisons_of
from textgym.preferences.measures import RewardEvaluation, evaluated
from textgym.preferences.objectives import LossName, Objective
from textgym.preferences.reward_models import CENTRED_ON, CosineEncoder, RewardHead, ScoreModel
from textgym.training import distributed

TIE_LEARNING_RATE = 0.01
"""Of log nu, a single number whose unit is that of a reward."""
EVALUATION_BATCH = 64
OF_A_MODEL = "config.json", "adapter_config.json", "modules.json"


class RewardModelTrainer(CheckedArguments):
    """Learns a reward of texts from preferences or ratings.

    Logged: `train/loss`; of all losses but regression `train/accuracy` and `train/margin`, the share of comparisons
    with the preferred text ahead (a tie is half), and by how much it is; `train/mean_reward`, `train/grad_norm`,
    `train/learning_rate`, `train/epoch`, `train/num_tokens`, `train/log_nu` where there are ties; after an epoch
    `eval/accuracy`, `eval/expected_calibration_error` and `eval/mean_reward`.

    Example:
        >>> from agents import RewardModelTrainer
        >>> trainer = RewardModelTrainer("tiny", "train.jsonl", "eval.jsonl", loss="regression")  # doctest: +SKIP
        >>> trainer.learn(num_train_epochs=2).evaluate().accuracy  # doctest: +SKIP
        >>> trainer.save("runs/reward_model")  # doctest: +SKIP

    Args:
        model: what gets a head with one output, or has one: `"tiny"`, `"all-minilm-l6-v2"`, `"smollm2-q4"`, a directory
            or a hub id of a causal language model, an encoder or a reward model; or a loaded sequence-classification
            model. With `score="cosine"`, an encoder or a loaded `SentenceTransformer`.
        train_dataset: what `textgym.preferences.read_preferences` reads, or for `loss="regression"` `read_ratings`.
        eval_dataset: preferences or ratings to evaluate on; None for none.
        tokenizer: of a loaded model; None is the model's own.
        score: `"head"`, the output of a head that reads prompt + completion; or `"cosine"`, that of the embeddings of
            prompt and completion, which an encoder makes one by one.
        loss: `"bradley_terry"` for pairs, with their ties and margins; `"info_nce"` for a chosen text against all that
            were rejected for it, and `"margin"` for pairs, both of which pass over margins of the data and refuse ties;
            `"regression"`, the squared error, for ratings (see `textgym.preferences.losses`).
        temperature: of `"info_nce"`; cosines, which lie in [-1, 1], need a small one, such as 0.05.
        margin: of `"margin"`, by how much the preferred text's score should be ahead.
        center_rewards_coefficient: weight of (r_chosen + r_rejected)^2 in `"bradley_terry"`, which keeps rewards around
            0 (Eisenstein et al. 2023, eq. 2); None leaves it out.
        learning_rate: step size of Adam at the start.
        lr_scheduler_type: `"linear"` lets the step size fall to 0 at the end of `learn`, `"constant"` keeps it.
        batch_size: comparisons in a gradient step.
        micro_batch_size: comparisons per forward-backward pass at most, to save memory: gradients add up to those of
            the whole batch. None takes the whole batch.
        max_grad_norm: a gradient with a larger norm is scaled down to it; infinity scales none.
        lora: arguments of `peft.LoraConfig`, such as `{"r": 8}`: adapters and the head are trained in place of all
            weights.
        tensorboard_log: directory of TensorBoard logs.
        verbose: 0 is silent, 1 and 2 print what is logged.
        seed: seeds Python, numpy and torch, and with them the new head and the order of the data.
        device: where the model is; `"auto"` takes a GPU where there is one.

    In several processes (`torch.distributed`) each takes a share of every batch, and all end with the same model.

    Raises:
        ValueError: an argument that is not accepted, data that do not fit the loss, a model that can get no head, or a
            text that is longer than the model reads.
    """

    def __init__(
        self,
        model: Named,
        train_dataset: Any,
        eval_dataset: Any = None,
        *,
        tokenizer: Named = None,
        score: Literal["head", "cosine"] = "head",
        loss: LossName = "bradley_terry",
        temperature: Positive = 1.0,
        margin: Positive = 1.0,
        center_rewards_coefficient: NonNegative | None = 0.01,
        learning_rate: Positive = 1e-4,
        lr_scheduler_type: Literal["linear", "constant"] = "linear",
        batch_size: Count = 32,
        micro_batch_size: Count | None = None,
        max_grad_norm: Positive = 1.0,
        lora: AsJSON = None,
        tensorboard_log: str | None = None,
        verbose: Literal[0, 1, 2] = 0,
        seed: Seed | None = None,
        device: Device = "auto",
    ):
        self.learning_rate, self.lr_scheduler_type = learning_rate, lr_scheduler_type
        self.batch_size, self.micro_batch_size, self.max_grad_norm = batch_size, micro_batch_size, max_grad_norm
        self.tensorboard_log, self.verbose = tensorboard_log, verbose
        self.train_data = comparisons_of(train_dataset, "train_dataset", grouped=loss == "info_nce")
        objective = Objective(loss, self.train_data, temperature, margin, center_rewards_coefficient)
        self.eval_data = None if eval_dataset is None else comparisons_of(eval_dataset, "eval_dataset")
        if score == "cosine" and lora is not None:
            raise ValueError("lora with score='cosine', whose encoder is trained whole; leave it out")
        if seed is not None:
            set_random_seed(seed)
        self.model: ScoreModel = (
            CosineEncoder(model, get_device(device))
            if score == "cosine"
            else RewardHead(model, tokenizer, lora, get_device(device))
        )
        self._tokens = self.model.tokens(self.train_data.items)
        self._random = np.random.default_rng(seed)
        self.num_tokens, self.global_step = 0, 0
        self.objective = objective.to(self.model.device)
        distributed.copy_first(self._trained())
        groups = [(self.model.trained, learning_rate), (list(objective.parameters()), TIE_LEARNING_RATE)]
        self.optimizer = torch.optim.Adam(
            [{"params": params, "lr": lr, "initial_lr": lr} for params, lr in groups], fused=True
        )
        self.logger = Logger(None, [])
        self._has_own_logger = False

    def _trained(self) -> list[torch.nn.Parameter]:
        return [*self.model.trained, *self.objective.parameters()]

    def set_logger(self, logger: Logger) -> None:
        """Log to this, in place of what `verbose` and `tensorboard_log` say."""
        self.logger, self._has_own_logger = logger, True

    def learn(
        self,
        num_train_epochs: float = 1.0,
        log_interval: int | None = 10,
        tb_log_name: str = "RewardModelTrainer",
        progress_bar: bool = False,
    ) -> RewardModelTrainer:
        """Train, and then centre the rewards where the loss leaves their sum open.

        Args:
            num_train_epochs: passes over the training data, as in TRL; may be a fraction.
            log_interval: gradient steps between rows of the log; None for no log.
            tb_log_name: of the TensorBoard run.
            progress_bar: show one (tqdm).

        Raises:
            FloatingPointError: the loss or the gradient is not finite; the weights are those before.
        """
        check_argument("num_train_epochs", num_train_epochs, Positive)
        check_argument("log_interval", log_interval, Count | None)
        if not self._has_own_logger:
            self.logger = configure_logger(self.verbose, self.tensorboard_log, tb_log_name)
        per_epoch = math.ceil(len(self.train_data) / self.batch_size)
        total = max(1, round(num_train_epochs * per_epoch))
        for step in tqdm(range(total), disable=not progress_bar):
            if step % per_epoch == 0:
                order = distributed.from_first(self._random.permutation(len(self.train_data)))
            start = step % per_epoch * self.batch_size
            remaining = 1 - step / total if self.lr_scheduler_type == "linear" else 1.0
            self._train(order[start : start + self.batch_size], remaining)
            self.logger.record("train/epoch", (step + 1) / per_epoch)
            ends = (step + 1) % per_epoch == 0 or step + 1 == total
            if step + 1 == total and self.objective.leaves_constant_open:
                self._centre()
            if ends and self.eval_data is not None:
                self._log_evaluation(self.evaluate())
            if log_interval is not None and ((step + 1) % log_interval == 0 or ends):
                self.logger.dump(self.global_step)
        return self

    def _train(self, index: IntArray, remaining: float) -> None:
        """One gradient step on the comparisons that `index` numbers, of which each process takes a share."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * remaining
        self.optimizer.zero_grad()
        sums: dict[str, torch.Tensor] = {}
        own, size, num_tokens = index[distributed.share(len(index))], self.micro_batch_size or len(index), 0
        for start in range(0, len(own), size):
            batch = self.train_data.select(own[start : start + size])
            items = np.unique(batch.candidates[batch.candidates >= 0])
            tokens = [self._tokens[item] for item in items]
            with memory_advice("lower micro_batch_size"):
                scores = self.model.scores(tokens)[torch.from_numpy(np.searchsorted(items, batch.candidates))]  # (B, n)
                losses, statistics = self.objective(scores, batch)
                (losses.sum() / len(index)).backward()
            for name, values in {"loss": losses, **statistics}.items():
                sums[name] = sums.get(name, 0) + values.detach().sum() / len(index)
            num_tokens += sum(len(ids) for texts in tokens for ids in texts)
        logged = distributed.sum_numbers(sums)
        distributed.sum_gradients(self._trained())
        norm = torch.nn.utils.clip_grad_norm_(self.model.trained, self.max_grad_norm).item()
        if not math.isfinite(logged["loss"]) or not math.isfinite(norm):
            raise FloatingPointError(f"the loss is {logged['loss']}, the norm of its gradient {norm}")
        self.optimizer.step()
        self.global_step += 1
        self.num_tokens += sum(distributed.from_all(num_tokens))
        for name, value in {**logged, "grad_norm": norm}.items():
            self.logger.record_mean(f"train/{name}", value)
        self.logger.record("train/learning_rate", self.learning_rate * remaining)
        self.logger.record("train/num_tokens", self.num_tokens)
        if self.objective.log_nu is not None:
            self.logger.record("train/log_nu", self.objective.log_nu.item())

    def _centre(self) -> None:
        """Let the mean reward of the training texts be 0, which the loss leaves open."""
        if isinstance(self.model, RewardHead):
            chosen = distributed.from_first(self._random.permutation(len(self._tokens))[:CENTRED_ON])
            self.model.centre([self._tokens[item] for item in chosen])

    def evaluate(self, dataset: Any = None) -> RewardEvaluation:
        """How well the rewards agree with preferences or ratings, of texts that were not trained on.

        The probability that a text is preferred is the loss's: sigmoid of the difference of the rewards, for
        `"info_nce"` over its temperature. Ratings are compared with the rewards themselves by `loss="regression"`, and
        otherwise in pairs; `"margin"` and, on preferences, `"regression"` have no probabilities, and no calibration.

        Args:
            dataset: preferences or ratings, as in the constructor; None is `eval_dataset`.

        Raises:
            ValueError: there are no data, or no pair of which one text is better.
        """
        data = self.eval_data if dataset is None else comparisons_of(dataset, "dataset")
        if data is None:
            raise ValueError("there is nothing to evaluate on; pass a dataset here, or eval_dataset to the constructor")
        tokens, scores = self.model.tokens(data.items), np.zeros(len(data.items))
        with torch.inference_mode():
            for start in range(0, len(tokens), EVALUATION_BATCH):
                part = slice(start, start + EVALUATION_BATCH)
                scores[part] = self.model.scores(tokens[part]).cpu().numpy()
        return evaluated(scores, data, self.objective.odds_temperature, self.objective.loss == "regression")

    def _log_evaluation(self, evaluation: RewardEvaluation) -> None:
        self.logger.record("eval/accuracy", evaluation.accuracy.mean)
        self.logger.record("eval/mean_reward", evaluation.mean_reward)
        if evaluation.reliability is not None:
            self.logger.record("eval/expected_calibration_error", evaluation.reliability.expected_calibration_error)

    def save(self, path: str | Path, adapters_only: bool = False) -> None:
        """Write the model and its tokenizer, whole or not at all.

        With a head, this is a directory of transformers' `AutoModelForSequenceClassification`, and the scorer
        `reward_model` loads it by its path; adapters become part of the weights. With `score="cosine"` it is one of
        sentence-transformers, for the scorer `similarity` with `to="prompt"`.

        Args:
            path: the folder; a model that is there is replaced.
            adapters_only: write adapters and the head alone, as peft does; the scorer then loads the model that they
                were trained on by its name.

        Raises:
            ValueError: `adapters_only`, and there are no adapters.
            FileExistsError: something other than a model is there.
            OSError: it could not be written.
        """
        path = Path(path)
        if path.exists() and not (path.is_dir() and any((path / name).is_file() for name in OF_A_MODEL)):
            raise FileExistsError(f"{str(path)!r} is there and holds no model; choose another path")
        with whole_folder(path) as folder:
            self.model.save(folder, adapters_only)
