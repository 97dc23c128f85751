"""The grid of runs: data sets × rows × seeds as papermill runs of the numbered notebooks, each stage trained once.

    snakemake --configfile grids/scenes.yaml          everything that is missing or out of date
    snakemake -n --configfile grids/scenes.yaml       the plan
    snakemake study --config datasets='[scenes]'      one seed of `proposed`, its figures and predictions

A grid file names data sets, rows of the tables, seeds, and for each notebook what papermill is to give it. `choose`
has, for a stage, learning rates: each row is trained with each on `train`, and takes the one with the best mAP on
`val` at the last epoch.
"""

import json
import re
import shlex
from pathlib import Path

from attnsem import StudyError, paper
from attnsem.analysis import rows
from attnsem.analysis.parameters import declared

RUNS, DATA = config.get("runs", "runs"), config.get("data", "data")
FIGURES = config.get("figures", f"{RUNS}/figures")
LAST, SEEDS = config.get("last", 4), config.get("seeds", [0])
CHOOSE = {int(stage): rates for stage, rates in config.get("choose", {}).items()}
DATASETS = {paper.name_of(dataset): dataset for dataset in config.get("datasets", ["scenes"])}
NOTEBOOKS = Path(workflow.basedir) / "notebooks"
STAGE = {n: f"{n:02}_train_stage{n}" for n in (1, 2, 3, 4)}
TABLES = ["05_table1_voc2007", "06_table2_mirflickr", "07_table3_modules", "08_table4_se_conv"]
SHOWN = ["09_attention_channels", "10_label_dependencies", "11_predict"]


def options(key, *notebooks):
    """What the grid file and --config give notebooks, refused here if one does not take it."""
    text = str(config.get(key) or "")
    words = shlex.split(text)
    for notebook in notebooks:
        cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
        parameters = next(declared("".join(cell["source"])) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        for name in (name for flag, name in zip(words, words[1:]) if flag in ("-p", "-r")):
            if name not in parameters:
                raise StudyError(f"{key}: {notebook} has no parameter {name!r}; there are {', '.join(parameters)}")
    return text


PREPARE, VIEW = options("prepare", "00_prepare_data"), options("view", *SHOWN)
OF_STAGE = {n: options(f"stage{n}", notebook) for n, notebook in STAGE.items()}
for name in config.get("rows", []):
    if name not in rows.ROWS:
        raise StudyError(f"there is no row {name!r}{rows.near(name)}")
ROWS = {
    name: row for name, row in rows.ROWS.items() if name in config.get("rows", rows.ROWS) and rows.stages_of(row, LAST)
}


def part_of(row, stage):
    return paper.part_of(rows.settings_of(row, stage, dataset="scenes"))


PARTS = {(part_of(row, n), n): row for row in ROWS.values() for n in rows.stages_of(row, LAST)}


def manifest(runs, dataset, row, stage, seed):
    return f"{runs}/{dataset}/{part_of(row, stage)}/seed{seed}/stage{stage}/manifest.json"


def all_runs():
    for dataset in DATASETS:
        for row in ROWS.values():
            yield from (manifest(RUNS, dataset, row, rows.stages_of(row, LAST)[-1], seed) for seed in SEEDS)


def before(n):
    """The inputs of stage n: its parent, which a candidate learning rate shares with the others; the choice."""

    def inputs(wildcards):
        row, (runs, candidate) = PARTS[wildcards.part, n], split(wildcards.runs)
        stages = rows.stages_of(row, LAST)
        at = stages.index(n)
        if at:
            sources = {"parent": manifest(runs, wildcards.dataset, row, stages[at - 1], wildcards.seed)}
        else:
            sources = {"prepared": f"{RUNS}/{wildcards.dataset}/prepared"}
        if n in CHOOSE and not candidate:
            sources["choice"] = f"{RUNS}/val/{wildcards.dataset}/{wildcards.part}/stage{n}.json"
        return sources

    return inputs


def split(runs):
    """A folder of runs, and the learning rate that it tries if it does."""
    match = re.fullmatch(r"(.*/val)/lr([^/]*)", runs)
    return match.groups() if match else (runs, None)


def parameters(n):
    def text(wildcards, input):
        row, (runs, candidate) = PARTS[wildcards.part, n], split(wildcards.runs)
        values = {"dataset": DATASETS[wildcards.dataset], "seed": wildcards.seed, "runs": wildcards.runs, "data": DATA}
        taken = [name for name in row if name != "stage"] if n > 2 else ["channels_per_label"] if n == 2 else []
        values |= {name: row[name] for name in taken if name in row}
        if candidate:
            values |= {"parents": runs, "lr": candidate}
        if n == 1 and runs.endswith("/val"):
            values |= {"train_split": "train", "test_split": "val"}
        if "choice" in input.keys() and Path(input.choice).exists():
            values["lr"] = json.loads(Path(input.choice).read_text())["lr"]
        return f"{OF_STAGE[n]} " + " ".join(f"-p {name} {shlex.quote(str(value))}" for name, value in values.items())

    return text


def common(wildcards):
    return f"-p dataset {shlex.quote(DATASETS[wildcards.dataset])} -p data {shlex.quote(DATA)}"


PAPERMILL = "papermill --log-output --no-progress-bar"


workdir: workflow.basedir  # so that relative paths are the notebooks' own


wildcard_constraints:
    runs=f"{re.escape(RUNS)}(/val(/lr[^/]+)?)?",
    dataset="|".join(map(re.escape, DATASETS)),
    seed=r"\d+",
    n=r"\d",


localrules:
    choose,


rule grid:
    default_target: True
    input:
        list(all_runs()),
        expand(f"{RUNS}/{{dataset}}/notebooks/{{table}}.done", dataset=DATASETS, table=TABLES),


rule study:
    input:
        expand(
            f"{RUNS}/{{dataset}}/notebooks/{{shown}}.done",
            dataset=DATASETS,
            shown=[*TABLES, *SHOWN],
        ),



rule prepare:
    output:
        touch(f"{RUNS}/{{dataset}}/prepared"),
    log:
        f"{RUNS}/{{dataset}}/notebooks/00_prepare_data.ipynb",
    params:
        lambda w: f"{common(w)} -p figures {shlex.quote(FIGURES)} {PREPARE}"
        + (f" -p source {shlex.quote(config['source'])}" if config.get("source") else ""),
    threads: workflow.cores or 1
    shell:
        f"{PAPERMILL} {NOTEBOOKS}/00_prepare_data.ipynb {{log:q}} {{params}}"


for n in STAGE:

    rule:
        name:
            f"stage{n}"
        input:
            unpack(before(n)),
        output:
            f"{{runs}}/{{dataset}}/{{part}}/seed{{seed}}/stage{n}/manifest.json",
        log:
            f"{{runs}}/{{dataset}}/{{part}}/seed{{seed}}/stage{n}/{STAGE[n]}.ipynb",
        params:
            notebook=f"{NOTEBOOKS}/{STAGE[n]}.ipynb",
            values=parameters(n),
        threads: config.get("threads", workflow.cores or 1)
        resources:
            gpu=1,
        shell:
            "{PAPERMILL} {params.notebook:q} {log:q} {params.values}"


def candidates(wildcards):
    runs = f"{RUNS}/val/lr{{rate}}/{{dataset}}/{{part}}/seed{{seed}}/stage{{n}}/manifest.json"
    return [runs.format(rate=rate, seed=SEEDS[0], **wildcards) for rate in CHOOSE[int(wildcards.n)]]


rule choose:
    input:
        candidates,
    output:
        f"{RUNS}/val/{{dataset}}/{{part}}/stage{{n}}.json",
    run:
        mean_ap = {rate: json.loads(Path(path).with_name("metrics.json").read_text())["mAP"]
                 for rate, path in zip(CHOOSE[int(wildcards.n)], input)}
        best = max(mean_ap, key=mean_ap.get)
        Path(output[0]).write_text(json.dumps({"lr": best, "mAP on val": mean_ap}, indent=2) + "\n")


rule table:
    input:
        list(all_runs()),
    output:
        touch(f"{RUNS}/{{dataset}}/notebooks/{{table}}.done"),
    log:
        f"{RUNS}/{{dataset}}/notebooks/{{table}}.ipynb",
    params:
        lambda w: f"-p dataset {w.dataset} -p runs {shlex.quote(RUNS)} -p stage {LAST} -p figures {shlex.quote(FIGURES)}",
    wildcard_constraints:
        table="|".join(TABLES),
    shell:
        f"{PAPERMILL} {NOTEBOOKS}/{{wildcards.table}}.ipynb {{log:q}} {{params}}"


rule show:
    input:
        lambda w: manifest(RUNS, w.dataset, ROWS["proposed"], LAST, SEEDS[0]),
    output:
        touch(f"{RUNS}/{{dataset}}/notebooks/{{shown}}.done"),
    log:
        f"{RUNS}/{{dataset}}/notebooks/{{shown}}.ipynb",
    params:
        lambda w: f"{common(w)} -p runs {shlex.quote(RUNS)} -p stage {LAST} -p seed {SEEDS[0]} "
        + (f"-p out {shlex.quote(RUNS)}/{w.dataset}/predictions " if w.shown == "11_predict"
           else f"-p figures {shlex.quote(FIGURES)} -p tables {shlex.quote(RUNS)}/tables ") + VIEW,
    wildcard_constraints:
        shown="|".join(SHOWN),
    shell:
        f"{PAPERMILL} {NOTEBOOKS}/{{wildcards.shown}}.ipynb {{log:q}} {{params}}"
