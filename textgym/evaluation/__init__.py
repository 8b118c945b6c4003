"""What a policy writes and how good it is: samples, one evaluation for every policy, and statistics over seeds."""

from textgym.evaluation.samples import NoReward, Sample, play, show_sample
from textgym.evaluation.statistics import Interval

__all__ = ["Interval", "NoReward", "Sample", "play", "show_sample"]
