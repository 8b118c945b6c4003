"""Baseline agents, each an algorithm of stable-baselines3's kind on `textgym.sb3`."""

from agents.reinforce import REINFORCE

__all__ = ["REINFORCE"]
