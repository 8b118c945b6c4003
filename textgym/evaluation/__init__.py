"""What a policy writes and how good it is: samples, one evaluation for every policy, and statistics over seeds."""

from textgym.evaluation.samples import NoReward, Sample, play, show_sample

__all__ = ["NoReward", "Sample", "play", "show_sample"]
