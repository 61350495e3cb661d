# The grid's questions, answered by functions; and the checks that stop a bad run before any job starts.
import fcntl
import re
import sys
from pathlib import Path

from miaprune import grid
from miaprune.config import ConfigError, check_config, check_files, check_targets

try:
    check_config(config, f"{workflow.basedir}/workflow/schemas/config.schema.json")
    GRID = grid.settings(config)
    DEMO = grid.settings(*config["demo"])
    check_targets(sys.argv[1:], config["results_dir"], GRID + DEMO)
except (ConfigError, grid.GridError) as error:
    sys.exit(f"error: {error}")


def forget_stale_lock():
    """Remove what a killed Snakemake left of its lock on this folder, if no run is alive here.

    Snakemake's lock is a file that outlives a kill -9; the kernel's lock is not, and tells whether anybody runs.
    """
    folder = Path(".snakemake")
    folder.mkdir(exist_ok=True)
    alive = open(folder / "alive", "w")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for lock in folder.glob("locks/*.lock"):
            lock.unlink()
    except BlockingIOError:
        pass  # somebody runs here: Snakemake's own lock stands
    fcntl.flock(alive, fcntl.LOCK_SH)
    return alive


if workflow.is_main_process:
    ALIVE = forget_stale_lock()

RESULTS = config["results_dir"]
DATA = config["data_dir"]
# The report of the whole grid lies in {results_dir}; that of the demo in {results_dir}/demo.
SCOPES = {"": GRID, "demo/": DEMO}


def any_of(names):
    return "|".join(sorted({re.escape(str(name)) for name in names}))


wildcard_constraints:
    dataset=any_of(s.dataset for s in GRID + DEMO),
    model=any_of(s.model for s in GRID + DEMO),
    pruner=any_of(grid.PRUNERS),
    sparsity=any_of(s.sparsity for s in GRID + DEMO if s.sparsity),
    setting=r"[^/]+/[^/]+/(original|[a-z0-9_]+_0?\.\d+)",
    attack=any_of(grid.ATTACKS),
    scope=any_of(SCOPES),


def attack_results(settings):
    return [f"{RESULTS}/{s.path}/{a}.json" for s in settings for a in config["attacks"]]


def checkpoints(folder):
    return [f"{folder}/{role}.safetensors" for role in grid.ROLES]


def signals_of(settings):
    return [f"{RESULTS}/{s.path}/signals.safetensors" for s in settings]


def recipe(stage):
    """A training stage's hyper-parameters for the wildcards' dataset: tables and images differ in epochs."""

    def of(wildcards):
        dataset = getattr(wildcards, "dataset", None) or wildcards.setting.split("/")[0]
        kind = "table" if dataset in grid.TABLE_DATASETS else "image"
        return config[stage] | {"epochs": config[stage]["epochs"][kind]}

    return of


def attack_options(wildcards):
    if wildcards.attack == "blindmi":
        return config["blindmi"]
    return config["attack_recipes"][config["attack_recipe"]]


def pairs(settings):
    """(dataset, model) of every original."""
    return [(s.dataset, s.model) for s in settings if s.pruner is None]


def families(settings):
    """(dataset, model, pruner) of every family of sparsities."""
    return list(dict.fromkeys((s.dataset, s.model, s.pruner) for s in settings if s.pruner))


def figure_names(settings):
    per_pair = [f"accuracy_vs_sparsity_{d}_{m}" for d, m in pairs(settings)]
    per_family = [
        f"{kind}_{d}_{m}_{p}" for kind in ("signal_distributions", "gaps_per_class") for d, m, p in families(settings)
    ]
    return ["samia_vs_others", "gaps_vs_accuracy", *per_pair, *per_family]


def report_files(scope):
    settings = SCOPES[scope]
    root = f"{RESULTS}/{scope}"
    tables = ["attacks", "models", *dict.fromkeys(s.dataset for s in settings)]
    return [
        *(f"{root}tables/{name}.csv" for name in tables),
        *(f"{root}figures/{name}.{suffix}" for name in figure_names(settings) for suffix in ("pdf", "png")),
        f"{root}claims.csv",
        f"{root}claims.md",
        f"{root}summary.txt",
    ]


onstart:
    needed = list(workflow.dag.needrun_jobs())
    try:
        check_files(
            RESULTS,
            DATA,
            [job.wildcards.dataset for job in needed if job.rule.name == "prepare"],
            sorted({str(file) for job in needed for file in job.input}),
        )
    except OSError as error:
        sys.exit(f"error: {error}")
