"""A search of Optuna whose trials are entries of a comparison, in a storage file from which it goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scripts.experiments import runs
from scripts.experiments.comparison import UNTRAINED, in_words
from scripts.experiments.entries import settings_of
from scripts.experiments.scores import objective
from scripts.experiments.search_space import Dimension
from textgym.importing import require


class Search:
    """The most reward - beta KL, over some dimensions.

    Args:
        args: what a trial is trained and evaluated on.
        entry: the agent, with the arguments that stay as they are.
        dimensions: what is searched over.
        beta: what a nat of KL costs.

    Raises:
        ImportError: Optuna is not installed.
    """

    def __init__(self, args: Any, entry: str, dimensions: list[Dimension], beta: float):
        self.args, self.entry, self.dimensions, self.beta = args, entry, dimensions, beta
        self.optuna = optuna = require("optuna", "search")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        args.out.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(args.out / "search.log"))
        storage = optuna.storages.JournalStorage(backend)
        name = " ".join([entry, *map(repr, dimensions)])  # another search in this folder is another study
        self.study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True, direction="maximize")
        seed = args.sampler_seed + len(self.study.trials)  # no draws again that an earlier call has made
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=args.at_once > 1)
        if not self.study.trials and all(d.default is not None for d in dimensions):
            self.study.enqueue_trial({d.name: d.default for d in dimensions})
        for cut_off in self.study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self.study.tell(cut_off.number, state=optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial(cut_off.params)  # whose finished runs are there

    def run(self, trials: int, at_once: int) -> Any:
        """Go on until there are so many trials; the best.

        Raises:
            RuntimeError: all trials failed.
        """
        state = self.optuna.trial.TrialState
        while (left := trials - self.finished) > 0:
            asked = [self.study.ask() for _ in range(min(left, at_once))]
            entries = [self.entry_of(trial) for trial in asked]
            experiments = [replace(self.args, agents=(entry,)) for entry in entries]
            for trial, records in zip(asked, runs.run_all(experiments, in_words), strict=True):
                trained = [record for record in records if record["agent"] != UNTRAINED]
                if any("error" in record for record in trained):
                    self.study.tell(trial, state=state.PRUNED)  # it counts, and TPE stays away from it
                else:
                    self.study.tell(trial, sum(objective(record, self.beta) for record in trained) / len(trained))
        if not self.study.get_trials(states=[state.COMPLETE]):
            raise RuntimeError(f"all {trials} trials failed; `output.log` in the folders of {self.args.out} tells why")
        return self.study.best_trial

    @property
    def finished(self) -> int:
        """How many trials have ended, well or not."""
        state = self.optuna.trial.TrialState
        return len(self.study.get_trials(states=[state.COMPLETE, state.PRUNED], deepcopy=False))

    def entry_of(self, trial: Any) -> str:
        """The entry of a trial."""
        return self.entry + ":,"[":" in self.entry] + ",".join(f"{d.name}={d.suggest(trial)}" for d in self.dimensions)

    def settings(self, trial: Any) -> dict[str, str]:
        """All arguments of a finished trial, as a command line writes them."""
        return settings_of(self.entry_of(self.optuna.trial.FixedTrial(trial.params)))[1]
