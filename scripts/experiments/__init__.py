"""Experiments of several trainings: comparisons of agents, constraints, distances on the toy."""
