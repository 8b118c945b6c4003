"""What `scripts/sample.py` does: texts, accepted texts, and a chat."""
