"""What a policy writes and how good it is: samples, one evaluation for every policy, and statistics over seeds."""

from textgym.importing import require

for _package in ("torch", "transformers"):
    require(_package, "agents")

from textgym.evaluation.aggregates import (
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap,
    stratified_mean,
)
from textgym.evaluation.chat import Conversation
from textgym.evaluation.episode_log import read_episodes, write_episodes
from textgym.evaluation.evaluation import Evaluation, describe, evaluate
from textgym.evaluation.frontier import Frontier, OutOfRangeError
from textgym.evaluation.frontier_sampling import sample_frontier
from textgym.evaluation.importance import (
    ESTIMATORS,
    Estimator,
    NoOverlapError,
    OffPolicyEstimate,
    OffPolicySample,
    estimate_value,
)
from textgym.evaluation.off_policy import off_policy, off_policy_sample
from textgym.evaluation.policies import ModelPolicy, Policy
from textgym.evaluation.samples import NoReward, Sample, play, show_sample
from textgym.evaluation.sampling import best_of_n, best_of_n_reward, quasi_rejection
from textgym.evaluation.statistics import Interval
from textgym.evaluation.success import Success, pass_at_k

__all__ = [
    "ESTIMATORS",
    "Conversation",
    "Estimator",
    "Evaluation",
    "Frontier",
    "Interval",
    "ModelPolicy",
    "NoOverlapError",
    "NoReward",
    "OffPolicyEstimate",
    "OffPolicySample",
    "OutOfRangeError",
    "Policy",
    "Sample",
    "Success",
    "best_of_n",
    "best_of_n_reward",
    "describe",
    "estimate_value",
    "evaluate",
    "interquartile_mean",
    "off_policy",
    "off_policy_sample",
    "pass_at_k",
    "play",
    "probability_of_improvement",
    "quasi_rejection",
    "read_episodes",
    "sample_frontier",
    "show_sample",
    "stratified_bootstrap",
    "stratified_mean",
    "write_episodes",
]
