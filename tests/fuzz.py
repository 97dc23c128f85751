"""`make fuzz`: atheris over every parser of tests/parsers.py, SECONDS each; an error that is no StudyError ends it."""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path


def fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["attnsem", "defusedxml"]):
        from attnsem import StudyError
        from tests.parsers import PARSERS
    parse, seeds = PARSERS[name]

    def once(data: bytes) -> None:
        with suppress(StudyError):
            parse(data)

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(data)
        limits = [f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=8192"]
        atheris.Setup([sys.argv[0], corpus, *limits, "-print_final_stats=1"], once)
        atheris.Fuzz()


def main() -> None:
    if len(sys.argv) == 3:
        fuzz(sys.argv[1], int(sys.argv[2]))
    from attnsem.files import write_json
    from attnsem.runs import environment
    from tests.parsers import PARSERS, ROOT

    seconds, found = int(sys.argv[1]), {}
    for name in PARSERS:
        begun = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", name, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True)
        runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        found[name] = {"runs": int(runs[0]) if runs else None, "seconds": round(time.monotonic() - begun)}
        found[name]["crash"] = None if not done.returncode else done.stdout[-2000:] + done.stderr[-2000:]
        print(name, json.dumps(found[name]), flush=True)
    write_json(ROOT / "benchmarks/robustness/fuzz.json", {"parsers": found} | environment())
    sys.exit(any(row["crash"] for row in found.values()))


if __name__ == "__main__":
    main()
