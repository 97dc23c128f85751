"""What the Snakefile shows a person of a grid: its plan as a table, a line a step, and what failed and why.

It stands in place of Snakemake's own log, which `snakemake -p` or `--verbose` gives, and .snakemake/log keeps.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import cache
from glob import escape
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import TextIO

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.logging import ColorizingTextHandler, get_event, logger
from snakemake_interface_logger_plugins.common import LogEvent
from tabulate import tabulate

from attnsem.files import ROOT, rooted

ROUTINE = re.compile(  # what Snakemake says of itself in every run
    "Assuming|Building|Using shell|Provided|Rules claiming|Select jobs|Execute |Finished|Complete log|Elapsed|host:|"
    "Conda env|Singularity|Group jobs|Job stats|[0-9]+ jobs have|Rules with|Some jobs were|Storing|Touching"
)
MOST_RUNS = 9  # of a kind that are looked at for how long one takes


def install(workflow: object, runs: str, ending: Callable[[], str]) -> None:
    """In place of Snakemake's own lines, unless its shell commands or all its lines are asked for.

    ending: of a grid that is complete.
    """
    settings = workflow.output_settings
    if not workflow.is_main_process or settings.printshellcmds or settings.verbose or settings.debug_dag:
        return
    for handler in [handler for handler in logger.handlers if isinstance(handler, ColorizingTextHandler)]:
        log = Log(workflow, rooted(runs), ending, handler.stream)
        for quiet in handler.filters:
            log.addFilter(quiet)
        logger.removeHandler(handler)
        logger.addHandler(log)


def step_of(job: object) -> str:
    """Its notebook, or the search of a stage; nothing for a target."""
    name = Path(job.log[0]).stem if job.log else ""
    return f"search of {name}" if job.rule.name.startswith("search") else name


def text_of(seconds: float) -> str:
    """As 0:43, 12:05 or 3 h 20 min."""
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02} min"


@cache
def trained(base: Path, dataset: str, part: str, stage: str) -> float | None:
    """Median of the seconds that manifests below `base` tell of a stage; None where there are none."""
    manifests = base.glob(f"{escape(dataset)}/{part}/seed*/stage{stage}/manifest.json")
    seconds = [value for path in islice(manifests, MOST_RUNS) if (value := number_in(path, "seconds")) is not None]
    return median(seconds) if seconds else None


def number_in(path: Path, *names: str) -> float | None:
    """A number of a JSON file, however deep; None where it has none or is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name in names:
            content = content[name]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return content


def recorded(job: object, runs: Path) -> float | None:
    """How long a step may take: as such steps below `runs` took, else as those of that grid or data set in results."""
    names, is_search = job.wildcards_dict, job.rule.name.startswith("search")
    if not (is_search or job.rule.name.startswith(("stage", "system"))):
        return number_in(Path(job.log[0]), "metadata", "papermill", "duration")
    stage = names.get("n", "1" if "system" in names else job.rule.name[-1])
    for part in (names.get("system") or names["part"], "*"):
        for base in (runs, ROOT / "results" / runs.name, ROOT / "results" / names["dataset"]):
            base = base / "val" if is_search and "system" not in names else base
            if seconds := trained(base, names["dataset"], part, stage):
                return seconds * (int(job.params.draws or 1) if is_search else 1)
    return None


def plan(jobs: Iterable[object], runs: Path) -> str:
    """A table: every kind of step, how many, how long each and all of them."""
    steps = {}
    for job in jobs:
        step = f"{job.rule.name.replace('_', ' of a ')} (other systems)" if "system" in job.rule.name else step_of(job)
        steps.setdefault(step, []).append(recorded(job, runs))
    rows, total = [], 0.0
    for step, seconds in sorted(steps.items()):
        times = [value for value in seconds if value is not None]
        if times:
            together = sum(times) * len(seconds) / len(times)
            rows.append((step, len(seconds), text_of(median(times)), text_of(together)))
            total += together
        else:
            rows.append((step, len(seconds), "not known", ""))
    count = sum(map(len, steps.values()))
    unknown = sum(len(seconds) for seconds in steps.values() if set(seconds) == {None})
    known = f"{text_of(total)}, and {unknown} of unknown length" if unknown else text_of(total)
    rows.append(("all", count, "", known if total else "not known"))
    table = tabulate(rows, ["step", "how many", "each", "one after the other"], disable_numparse=True)
    measured = f"Times are those of such steps below {runs} or results, on the machine they ran on"
    return f"{table}\n{measured}; of stages, their epochs alone. Nothing has been run."


def headline(dataset: str, metrics: dict[str, list[Path]]) -> str:
    """mAP of the last row, and its difference vs. the others. metrics: of each row, a file a seed."""
    values = {row: [json.loads(path.read_text())["mAP"] for path in paths] for row, paths in metrics.items()}
    means = {row: mean(of_row) for row, of_row in values.items() if None not in of_row}
    if not means:
        return f"{dataset}: no image of its test split has a label, so there is no mAP"
    *others, (row, value) = means.items()
    vs = "".join(f", Δ {value - other:+.1f} vs. {name} ({other:.1f})" for name, other in others)
    seeds = len(values[row])
    return f"{dataset}, {seeds} seeds: {row} has {value:.1f} mAP{vs}".replace(", 1 seeds", ", one seed")


class Log(logging.StreamHandler):
    """Of one call of Snakemake."""

    def __init__(self, workflow: object, runs: Path, ending: Callable[[], str], stream: TextIO) -> None:
        super().__init__(stream)
        self.workflow, self.runs, self.ending = workflow, runs, ending
        self.jobs, self.failed = {}, 0  # the steps, by job id
        self.expected, self.began, self.seconds = {}, {}, {}  # how long one should take, when it began, what it took
        self.lines = {
            LogEvent.RUN_INFO: self.all_jobs,
            LogEvent.JOB_INFO: self.beginning,
            LogEvent.JOB_FINISHED: self.finished,
            LogEvent.JOB_ERROR: self.failure,
        }

    def format(self, record: logging.LogRecord) -> str:
        """Nothing for what only Snakemake's authors want to know."""
        event, message = get_event(record), str(record.msg or "")
        if event in self.lines:
            return self.lines[event](record)
        if message == NOTHING_TO_BE_DONE_MSG:
            return message if self.workflow.dryrun else f"{message}\n{self.ending()}"
        if message.startswith("RuleException:\nCalledProcessError"):  # what failed is told by JOB_ERROR
            return ""
        if getattr(record, "exception", "") == "StudyError":
            return "\n".join(line for line in message.splitlines()[1:] if not line.startswith('  File "'))
        if record.levelno >= logging.ERROR and self.failed:
            remedy = "mend that, and the same command goes on from what is there"
            return f"{self.failed} of {len(self.jobs)} steps failed; {remedy}" if event == LogEvent.ERROR else ""
        if record.levelno >= logging.WARNING:
            return message
        return "" if event or self.workflow.dryrun or ROUTINE.match(message) else message

    def emit(self, record: logging.LogRecord) -> None:
        if line := self.format(record):
            self.stream.write(f"{line}\n")
            self.flush()

    def all_jobs(self, record: logging.LogRecord) -> str:
        if self.jobs:  # a plan is told again at its end
            return ""
        self.jobs = {job.jobid: job for job in self.workflow.dag.needrun_jobs() if step_of(job)}
        self.expected = {number: recorded(job, self.runs) for number, job in self.jobs.items()}
        return plan(self.jobs.values(), self.runs) if self.workflow.dryrun else ""

    def beginning(self, record: logging.LogRecord) -> str:
        if self.workflow.dryrun or record.jobid not in self.jobs:
            return ""
        left = self.left()
        self.began[record.jobid] = time.monotonic()
        job, names = self.jobs[record.jobid], record.wildcards
        parts = [names[name] for name in ("dataset", "part") if name in names]
        what = ", ".join(parts + ([f"seed {names['seed']}"] if "seed" in names else []))
        number = f"{len(self.began):>{len(str(len(self.jobs)))}} of {len(self.jobs)}"
        return f"{number}  {step_of(job)}: {what}" + (f"  (about {text_of(left)} left)" if left else "")

    def left(self) -> float:
        """Seconds for the steps that have not ended, unknown ones as the usual one so far; 0 where nothing is known."""
        usual = median(self.seconds.values()) if self.seconds else 0
        times = [seconds for number, seconds in self.expected.items() if number not in self.seconds]
        return sum(usual if seconds is None else seconds for seconds in times)

    def finished(self, record: logging.LogRecord) -> str:
        if record.job_id in self.began:
            self.seconds[record.job_id] = time.monotonic() - self.began[record.job_id]
        return ""

    def failure(self, record: logging.LogRecord) -> str:
        """Its sentence, and where all is told."""
        self.failed += 1
        path = Path(record.log[0]) if record.log else Path()
        log = path.with_suffix(".log")
        text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else "it left no log"
        before, _, sentence = text.rpartition("\nStudyError: ")  # which may have commands in lines of their own
        sentence = sentence if before else (text or "it said nothing").splitlines()[-1]
        return f"FAILED {path.stem}: {sentence}\n  {path}\n  {log}"
