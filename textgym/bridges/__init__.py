"""Bridges between TextGym's ids and the libraries that train and evaluate language models.

Each module is one library's and imports it only when it is used: `trl`, `openenv`, `verifiers`, `lm_eval`.
"""
