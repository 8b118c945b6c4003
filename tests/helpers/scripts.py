"""Running a script's `main` as its command line does, in this process."""

import pytest

from scripts.command_line import run_script


def error_of(main, arguments, *words: str) -> str:
    """What the script says on its way out; it must fail."""
    with pytest.raises(SystemExit) as ended:
        run_script(main, arguments, given=words)
    assert isinstance(ended.value.code, str), "the script ended without a message"
    return ended.value.code.partition(": ")[2]
