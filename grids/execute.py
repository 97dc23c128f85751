"""`python grids/execute.py notebook executed -p …`: papermill, for the Snakefile.

Epochs and warnings go to the terminal, all that papermill and the kernel say to <executed>.log, which ends with why it
failed.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TextIO

from papermill.cli import papermill
from papermill.exceptions import PapermillExecutionError


def pass_on(reading: int, log: TextIO, terminal: TextIO, title: str) -> None:
    """Of what comes through a pipe, lines that notebook.say_epoch marks go to the terminal, the others to the log."""
    with open(reading, encoding="utf-8", errors="replace", newline="\n") as pipe:
        for line in pipe:
            if line.startswith("\r"):
                terminal.write(f"  {title}: {line.lstrip()}")
            else:
                log.write(line)


@contextmanager
def divided(log: TextIO, title: str) -> Iterator[None]:
    """What is written to standard error in here, by the kernel too, which inherits it, is passed on."""
    with open(os.dup(2), "w", buffering=1, encoding="utf-8") as terminal:
        reading, writing = os.pipe()
        thread = Thread(target=pass_on, args=(reading, log, terminal, title), daemon=True)
        thread.start()
        os.dup2(writing, 2)
        os.close(writing)
        try:
            yield
        finally:
            os.dup2(terminal.fileno(), 2)
            thread.join(2)  # the pipe ends with the last process that has it


class Warnings(logging.StreamHandler):
    """Passes on those lines of what a notebook prints that are warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            if line.startswith("WARNING: "):
                self.stream.write(f"  {line}\n")
                self.flush()


def run(arguments: list[str]) -> None:
    """papermill; once more where another program took a port that was picked for the kernel (papermill's issue 511)."""
    command = ["--log-output", "--no-progress-bar", *arguments]
    try:
        papermill(command, standalone_mode=False)
    except RuntimeError as error:
        if "Kernel died before replying" not in str(error):  # said of a kernel that has run no cell
            raise
        papermill(command, standalone_mode=False)


def main(arguments: list[str]) -> int:
    executed = Path(arguments[1])
    title = " ".join(executed.parent.parts[-3:]) if executed.parent.name.startswith("stage") else executed.stem
    text = {"mode": "w", "buffering": 1, "encoding": "utf-8"}
    with open(executed.with_suffix(".log"), **text) as log, open(os.dup(2), **text) as terminal:
        logging.basicConfig(stream=log, level="INFO", format="%(message)s")
        logging.getLogger().addHandler(Warnings(terminal))
        try:
            with divided(log, title):
                run(arguments)
        except PapermillExecutionError as error:
            log.write(f"{error}\n{error.ename}: {error.evalue}\n")
            return 1
        except KeyboardInterrupt:
            log.write("interrupted\n")
            return 130
        except Exception as error:  # papermill's own, such as a full disk
            logging.exception("papermill itself failed")
            log.write(f"{type(error).__name__}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
