"""Command lines: thin scripts on `textgym` and `agents`."""
