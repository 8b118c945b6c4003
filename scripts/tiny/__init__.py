"""How the embedded models are made: the corpus of "tiny", the rows of "tiny-tasks", their training and their cards."""
