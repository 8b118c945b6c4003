"""How the embedded model "tiny" is made: its corpus, its training and its card."""
