"""The grid of runs: data sets × rows × seeds as papermill runs of the numbered notebooks, each stage trained once.

    snakemake --configfile grids/scenes.yaml          everything that is missing or out of date
    snakemake -n --configfile grids/scenes.yaml       the plan
    snakemake study --configfile grids/study.yaml     one seed of `proposed`, its figures and predictions

A grid file names data sets, rows of the tables, seeds, and for each notebook what papermill is to give it. `search`
has, for a stage, a number of draws of learning rate, epochs and weight decay, in stage 4 of the rate alone: each row is
trained by each on `train`, with a seed that is not among those reported (`search_seed`), and takes the one with the
best mAP on `val` at the last epoch (attnsem/analysis/search.py).
`choices` has the folder of another grid's val, whose choices those stages take in place of a search.
`systems` has other systems (attnsem/analysis/systems), which stand on stage 1 and are searched with as many draws.
"""

import json
import os
import re
import shlex
import sys
from itertools import product
from pathlib import Path

from attnsem import StudyError, paper
from attnsem.analysis import rows, systems
from attnsem.analysis.parameters import declared
from attnsem.datasets.prepared import source_path
from attnsem.datasets.table import boxes_of
from attnsem.notebook import argument
from grids.log import headline, install

RUNS, DATA = (str(config.get(name, name)) for name in ("runs", "data"))  # --config makes 2021 a number
CHOICES = str(config.get("choices") or f"{RUNS}/val")
FIGURES = str(config.get("figures") or f"{RUNS}/figures")


def listed(key, default):
    """A list of the grid file; one alone may stand without brackets."""
    value = config.get(key, default)
    return [value] if isinstance(value, (str, int)) else value


LAST, SEEDS = config.get("last", 4), listed("seeds", [0])
SEARCH = {int(stage): draws for stage, draws in config.get("search", {}).items()}
SEARCH_SEED = int(config.get("search_seed", max(map(int, SEEDS)) + 1))


def chose():
    """The seeds by which settings are chosen on val, or were, where another grid's choices are taken."""
    if not config.get("choices"):
        return {SEARCH_SEED}
    return {int(path.name.removeprefix("seed")) for path in Path(workflow.basedir, CHOICES).glob("*/*/seed*")}


if config.get("choices") and not SEARCH:
    raise StudyError("choices are taken by the stages that search names, and it names none; add it, such as search: {2: 12, 3: 12}")
if both := SEARCH and chose() & {*map(int, SEEDS)}:
    raise StudyError(f"seed {min(both)} chooses settings on val, so it cannot confirm them; take it out of seeds, or give another search_seed")
DATASETS = {paper.name_of(dataset): dataset for dataset in listed("datasets", ["scenes"])}
NOTEBOOKS = Path(workflow.basedir) / "notebooks"
STAGE = {n: f"{n:02}_train_stage{n}" for n in (1, 2, 3, 4)}
TABLES = ["05_table1_voc2007", "06_table2_mirflickr", "07_table3_modules", "08_table4_se_conv"]
SHOWN = ["09_attention_channels", "10_label_dependencies", "11_predict"]
REPORT = f"{RUNS}/report.html"


def ending():
    """What a complete grid ends with: the result, where to read it, and how to look further."""
    lines = []
    for dataset in DATASETS:
        named = [name for name in (rows.BASELINE, rows.LONGER, "proposed") if name in ROWS]
        ends = {name: [Path(last_of(dataset, ROWS[name], seed)).with_name("metrics.json") for seed in SEEDS] for name in named}
        made = {name: paths for name, paths in ends.items() if all(path.exists() for path in paths)}
        lines += [headline(dataset, made)] if made else []
    notebooks = ", ".join(f"{RUNS}/{dataset}/notebooks" for dataset in DATASETS)
    read = f"report: {REPORT}" if Path(REPORT).exists() else f"executed notebooks: {notebooks}"
    return "\n".join([*lines, read, "JupyterLab: make lab, or where there is no make: jupyter lab"])


install(workflow, RUNS, ending)


def options(key, *notebooks):
    """What the grid file and --config give notebooks, refused here if one does not take it."""
    text = str(config.get(key) or "")
    words = shlex.split(text)
    for notebook in notebooks:
        cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        parameters = next(declared("".join(cell["source"])) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        for name in (name for flag, name in zip(words, words[1:]) if flag in ("-p", "-r")):
            if name not in parameters:
                raise StudyError(f"{key}: {notebook} has no parameter {name!r}; there are {', '.join(parameters)}")
    return text


PREPARE, VIEW = options("prepare", "00_prepare_data"), options("view", *SHOWN)
OF_STAGE = {n: options(f"stage{n}", notebook) for n, notebook in STAGE.items()}
for name in listed("rows", []):
    if name not in rows.ROWS:
        raise StudyError(f"there is no row {name!r}{rows.near(name)}")
ROWS = {
    name: row for name, row in rows.ROWS.items() if name in listed("rows", rows.ROWS) and rows.stages_of(row, LAST)
}
SYSTEMS = listed("systems", [])
if SYSTEMS and config.get("choices"):
    raise StudyError("systems take what was chosen on val below their own runs; leave out choices, or systems")
for name in SYSTEMS:
    systems.check_name(name)


def part_of(row, stage):
    return paper.part_of(rows.settings_of(row, stage, dataset="scenes"))


PARTS = {("densenet", 1): rows.ROWS[rows.BASELINE]} if SYSTEMS else {}  # what systems stand on
PARTS |= {(part_of(row, n), n): row for row in ROWS.values() for n in rows.stages_of(row, LAST)}


def manifest(dataset, part, stage, seed):
    return f"{RUNS}/{dataset}/{part}/seed{seed}/stage{stage}/manifest.json"


def last_of(dataset, row, seed):
    stage = rows.stages_of(row, LAST)[-1]
    return manifest(dataset, part_of(row, stage), stage, seed)


def all_runs():
    for dataset in DATASETS:
        for row in ROWS.values():
            yield from (last_of(dataset, row, seed) for seed in SEEDS)
        yield from (manifest(dataset, name, 1, seed) for name in SYSTEMS for seed in SEEDS)


def parent(row, stage):
    """The part that a stage of a row stands on, as its folder and stage; none for the first."""
    before = paper.before(rows.settings_of(row, stage, dataset="scenes"))
    return before and (paper.part_of(before), before.stage)


def chosen(dataset, part, stage):
    return f"{CHOICES}/{dataset}/{part}/stage{stage}.json"


for dataset, (part, n) in product(DATASETS, PARTS if config.get("choices") else ()):
    if n in SEARCH and not Path(workflow.basedir, path := chosen(dataset, part, n)).exists():
        raise StudyError(f"there is no {path}: stage {n} of {part} was not searched there; leave its rows out of rows")


def before(n):
    """The inputs of stage n: its parent, and what was chosen for it."""

    def inputs(wildcards):
        row = PARTS[wildcards.part, n]
        on = parent(row, n)
        sources = {"prepared": f"{RUNS}/{wildcards.dataset}/prepared"}
        if on:
            sources = {"parent": manifest(wildcards.dataset, *on, wildcards.seed)}
        if n in SEARCH:
            sources["choice"] = chosen(wildcards.dataset, wildcards.part, n)
        return sources

    return inputs


def values_of(row, n, dataset):
    """What the row's own terms and the grid file give a stage."""
    shared = [*paper.NAMED[n], *(["attention_objective"] if n == 2 else [])]
    taken = [name for name in row if name != "stage"] if n > 2 else shared
    values = {"dataset": DATASETS[dataset], "runs": RUNS, "data": DATA}
    return values | {name: row[name] for name in taken if name in row}


def flags(n, values):
    return f"{OF_STAGE[n]} " + " ".join(argument(name, value) for name, value in values.items())


def parameters(n):
    """Without what was chosen, which is a file of parameters: snakemake tracks params that are no function of inputs."""

    def text(wildcards):
        row, choice = PARTS[wildcards.part, n], chosen(wildcards.dataset, wildcards.part, n)
        values = values_of(row, n, wildcards.dataset) | {"seed": int(wildcards.seed)}
        return flags(n, values) + (f" -f {shlex.quote(choice)}" if n in SEARCH else "")

    return text


def common(wildcards):
    return f"{argument('dataset', DATASETS[wildcards.dataset])} {argument('data', DATA)}"


def table_of(wildcards):
    """The user's own table and its boxes, where the data set is one, by its path or by its name."""
    table = source_path(DATASETS[wildcards.dataset], DATA)
    return [path for path in (table, boxes_of(table)) if path.exists()] if table else []


PYTHON = "python" if os.name == "nt" else shlex.quote(sys.executable)  # Windows' shell knows no single quotes
HERE = shlex.quote(NOTEBOOKS.as_posix())
PAPERMILL = f"{PYTHON} {HERE}/../grids/execute.py"


workdir: workflow.basedir  # so that relative paths are the notebooks' own


wildcard_constraints:
    dataset="|".join(map(re.escape, DATASETS)),
    seed=r"\d+",
    n=r"\d",
    part="|".join(map(re.escape, sorted({part for part, _ in PARTS}))),
    system="|".join(map(re.escape, SYSTEMS)) or "none",


rule grid:
    default_target: True
    input:
        list(all_runs()),
        expand(f"{RUNS}/{{dataset}}/notebooks/{{table}}.done", dataset=DATASETS, table=TABLES),


rule study:
    input:
        REPORT,


onsuccess:
    print(ending())


rule prepare:
    input:
        table_of,
    output:
        touch(f"{RUNS}/{{dataset}}/prepared"),
    log:
        f"{RUNS}/{{dataset}}/notebooks/00_prepare_data.ipynb",
    params:
        lambda w: f"{common(w)} {argument('figures', FIGURES)} {PREPARE}"
        + (f" {argument('source', str(config['source']))}" if config.get("source") else ""),
    threads: workflow.cores or 1
    shell:
        f"{PAPERMILL} {HERE}/00_prepare_data.ipynb {{log:q}} {{params}}"


for n in STAGE:

    rule:
        name:
            f"stage{n}"
        input:
            unpack(before(n)),
        output:
            f"{RUNS}/{{dataset}}/{{part}}/seed{{seed}}/stage{n}/manifest.json",
        log:
            f"{RUNS}/{{dataset}}/{{part}}/seed{{seed}}/stage{n}/{STAGE[n]}.ipynb",
        params:
            notebook=f"{NOTEBOOKS}/{STAGE[n]}.ipynb",
            values=parameters(n),
        threads: config.get("threads", workflow.cores or 1)
        resources:
            gpu=1,
        shell:
            "{PAPERMILL} {params.notebook:q} {log:q} {params.values}"


def before_choice(wildcards):
    on = parent(PARTS[wildcards.part, int(wildcards.n)], int(wildcards.n))
    return [chosen(wildcards.dataset, *on)] if on else [f"{RUNS}/{wildcards.dataset}/prepared"]


def search_parameters(wildcards):
    n = int(wildcards.n)
    return flags(n, values_of(PARTS[wildcards.part, n], n, wildcards.dataset) | {"seed": SEARCH_SEED})


rule search:
    input:
        before_choice,
    output:
        f"{RUNS}/val/{{dataset}}/{{part}}/stage{{n}}.json",
    log:
        f"{RUNS}/val/{{dataset}}/{{part}}/stage{{n}}.log",
    params:
        draws=lambda w: SEARCH.get(int(w.n), 0),
        values=search_parameters,
    threads: config.get("threads", workflow.cores or 1)
    resources:
        gpu=1,
    shell:
        "{PYTHON} -m attnsem.analysis.search {wildcards.n} --draws {params.draws} {params.values} > {log:q} 2>&1"


DRAWS = max(SEARCH.values(), default=0)  # a system has the budget of every other row


def system_parameters(seed):
    def text(wildcards):
        values = {"dataset": DATASETS[wildcards.dataset], "runs": RUNS, "data": DATA, "seed": int(wildcards.seed if seed is None else seed)}
        _, is_given, views = OF_STAGE[3].partition(" feature_cache ")
        values |= {"feature_cache": int(views.split()[0])} if is_given else {}
        return " ".join(argument(name, value) for name, value in values.items())

    return text


def before_system(wildcards):
    sources = [manifest(wildcards.dataset, "densenet", 1, wildcards.seed)]
    return sources + ([chosen(wildcards.dataset, wildcards.system, 1)] if DRAWS else [])


rule system:
    input:
        before_system,
    output:
        f"{RUNS}/{{dataset}}/{{system}}/seed{{seed}}/stage1/manifest.json",
    log:
        f"{RUNS}/{{dataset}}/{{system}}/seed{{seed}}/stage1/{{system}}.log",
    params:
        system_parameters(None),
    threads: config.get("threads", workflow.cores or 1)
    resources:
        gpu=1,
    shell:
        "{PYTHON} -m attnsem.analysis.systems {wildcards.system} {params} > {log:q} 2>&1"


rule search_system:
    input:
        lambda w: chosen(w.dataset, "densenet", 1),
    output:
        f"{RUNS}/val/{{dataset}}/{{system}}/stage1.json",
    log:
        f"{RUNS}/val/{{dataset}}/{{system}}/{{system}}.log",
    params:
        draws=DRAWS,
        values=system_parameters(SEARCH_SEED),
    threads: config.get("threads", workflow.cores or 1)
    resources:
        gpu=1,
    shell:
        "{PYTHON} -m attnsem.analysis.systems {wildcards.system} --draws {params.draws} {params.values} > {log:q} 2>&1"


rule table:
    input:
        list(all_runs()),
    output:
        touch(f"{RUNS}/{{dataset}}/notebooks/{{table}}.done"),
    log:
        f"{RUNS}/{{dataset}}/notebooks/{{table}}.ipynb",
    params:
        lambda w: f"{argument('dataset', w.dataset)} {argument('runs', RUNS)} -p stage {LAST} {argument('figures', FIGURES)}",
    wildcard_constraints:
        table="|".join(TABLES),
    shell:
        f"{PAPERMILL} {HERE}/{{wildcards.table}}.ipynb {{log:q}} {{params}}"


rule show:
    input:
        lambda w: last_of(w.dataset, ROWS["proposed"], SEEDS[0]),
    output:
        touch(f"{RUNS}/{{dataset}}/notebooks/{{shown}}.done"),
    log:
        f"{RUNS}/{{dataset}}/notebooks/{{shown}}.ipynb",
    params:
        lambda w: f"{common(w)} {argument('runs', RUNS)} -p stage {LAST} -p seed {SEEDS[0]} "
        + (f"{argument('out', f'{RUNS}/{w.dataset}/predictions')} " if w.shown == "11_predict"
           else f"{argument('figures', FIGURES)} {argument('tables', f'{RUNS}/tables')} ") + VIEW,
    wildcard_constraints:
        shown="|".join(SHOWN),
    priority: 1  # the longest first
    shell:
        f"{PAPERMILL} {HERE}/{{wildcards.shown}}.ipynb {{log:q}} {{params}}"


rule report:
    input:
        expand(f"{RUNS}/{{dataset}}/notebooks/{{shown}}.done", dataset=DATASETS, shown=[*TABLES, *SHOWN]),
    output:
        REPORT,
    log:
        f"{RUNS}/12_report.ipynb",
    params:
        f"{argument('runs', RUNS)} {argument('figures', FIGURES)}",
    shell:
        f"{PAPERMILL} {HERE}/12_report.ipynb {{log:q}} {{params}} && {PYTHON} -m jupyter nbconvert "
        f"--config {HERE}/html.json --to html --output-dir {shlex.quote(RUNS)} --output report.html {{log:q}}"
