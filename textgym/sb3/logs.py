"""Logs that go on where a checkpoint is: what was logged after it, by a run that ended there, is taken back."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import (
    Figure,
    FormatUnsupportedError,
    HParam,
    Image,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    Video,
    filter_excluded_keys,
)
from torch.utils.tensorboard import SummaryWriter

from textgym.files import whole_file
from textgym.sb3.trackers import TrackerLog, TrackerName
from textgym.training.run import RunFolder

STEP = "time/total_timesteps"
CLOCKS = "time/fps", "time/time_elapsed", "time/scoring", "time/scoring_share"
"""What no two runs of the same training log alike."""


def run_logger(
    run: RunFolder, name: str, report_to: Sequence[TrackerName] = (), config: dict[str, Any] | None = None
) -> Logger:
    """The logger of a run, `progress.csv` and TensorBoard, both at the run's newest checkpoint, and trackers.

    Args:
        run: the folder.
        name: of the TensorBoard run.
        report_to: trackers, in which the run has the name of its folder.
        config: settings, for the trackers.

    Raises:
        ImportError: the package of a tracker is not installed.
    """
    steps = run.num_timesteps
    trackers = [TrackerLog(tracker, run.path, run.path.resolve().name, config) for tracker in report_to]
    return Logger(str(run.path), [CSVLog(run.log, steps), TensorBoardLog(run.board / name, steps), *trackers])


class CSVLog(KVWriter):
    """A CSV file with a column for every key, in the order in which they came.

    SB3's `CSVOutputFormat` begins an old file anew and orders the columns by the hashes of their names, which every
    process makes anew; and while it adds a column, the file is cut.

    Args:
        path: the file.
        steps: rows of more steps than this are left out, if the file is there.

    Raises:
        ValueError: the file is there, and is not what was written.
    """

    def __init__(self, path: Path, steps: int = 0):
        self.path = path
        self.columns: list[str] = []
        try:
            rows = [row for row in self._read() if float(row.get(STEP) or "inf") <= steps] if path.exists() else []
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{str(path)!r} is no log that can go on: {error}; mend it, or move it away") from error
        self._write_all(rows)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a row, and bring the file to the system; a new column makes it anew, in one step."""
        row = filter_excluded_keys(key_values, key_excluded, "csv")
        for value in row.values():
            if isinstance(value, Video | Figure | Image | HParam):
                raise FormatUnsupportedError(["csv"], type(value).__name__.lower())
        if new := [key for key in row if key not in self.columns]:
            rows = self._read()
            self.columns += new
            self._write_all(rows)
        self._writer.writerow(row)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> list[dict[str, str]]:
        """The rows, without one that was cut; the columns are read, too."""
        text = self.path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        self.columns = list(reader.fieldnames or [])
        rows = list(reader)
        if longer := [number for number, row in enumerate(rows, 1) if None in row]:
            raise ValueError(f"row {longer[0]} has more fields than there are columns")
        return rows

    def _write_all(self, rows: list[dict[str, str]]) -> None:
        """Replace the file, and open it to append."""
        with whole_file(self.path) as new, new.open("w", encoding="utf-8", newline="") as file:
            writer = self._writer_of(file)
            if self.columns:
                writer.writeheader()
            writer.writerows(rows)
        self._file = self.path.open("a", encoding="utf-8", newline="")
        self._writer = self._writer_of(self._file)

    def _writer_of(self, file: Any) -> Any:
        return csv.DictWriter(file, self.columns, lineterminator="\n")


class TensorBoardLog(TensorBoardOutputFormat):
    """SB3's, in a new file of events, which hides older events of more steps than `steps`.

    Args:
        folder: of the TensorBoard run.
        steps: of the checkpoint that the run goes on from.
    """

    def __init__(self, folder: Path, steps: int = 0):
        self.writer = SummaryWriter(str(folder), purge_step=steps + 1 if folder.exists() else None)
        self._is_closed = False
