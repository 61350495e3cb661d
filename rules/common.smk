# The grid's questions, answered by functions; and the checks that stop a bad run before any job starts.
import re
import sys
from functools import cache
from pathlib import Path

from miaprune import grid
from miaprune.config import (
    ConfigError,
    attack_options,
    check_config,
    check_reports,
    check_targets,
    read_words,
    training_recipe,
)
from miaprune.needs import megabytes, minutes

# A submitted job's arguments also name what it waits for, this option's what no grid need make any more.
NAMES_TARGETS = workflow.is_main_process and not {"--cleanup-metadata", "--cm"} & set(sys.argv)

read_words(config)
try:
    check_config(config, f"{workflow.basedir}/workflow/schemas/config.schema.json")
    GRID = grid.attacked(grid.settings(config), config)
    DEMO = grid.attacked(grid.settings(*config["demo"]["grid"]), config["demo"])
    if NAMES_TARGETS:
        check_targets(sys.argv[1:], config["results_dir"], GRID + DEMO, config["attacks"])
except (ConfigError, grid.GridError) as error:
    sys.exit(f"error: {error}")


RESULTS = config["results_dir"]
DATA = config["data_dir"]
# What is attacked, by the folder of its report: the whole grid's lies in {results_dir}, the demo's in demo/.
SCOPES = {"": GRID, "demo/": DEMO}
SETTINGS = list(dict.fromkeys(victim for victim, _ in GRID + DEMO))


def any_of(names):
    return "|".join(sorted({re.escape(str(name)) for name in names if name is not None}))


PRUNED = rf"({any_of(s.pruner for s in SETTINGS)})_({any_of(s.sparsity for s in SETTINGS)})"


wildcard_constraints:
    dataset=any_of(s.dataset for s in SETTINGS),
    model=any_of(s.model for s in SETTINGS),
    pruner=any_of(s.pruner for s in SETTINGS),
    sparsity=any_of(s.sparsity for s in SETTINGS),
    defense=any_of(grid.DEFENSES),
    strength=any_of(s.strength for s in SETTINGS) or "none",
    setting=rf"[^/]+/[^/]+/(original|{PRUNED}(/({any_of(grid.DEFENSES)})_[^/]+)?)",
    variant=PRUNED,
    shadows=PRUNED,
    scope=any_of(SCOPES),


# The configured attacks in one order, whatever theirs: by it those adversaries score who train nothing.
SCORED = [attack for attack in grid.ATTACKS if attack in config["attacks"]]


def scores(folder, attacks=SCORED):
    return [f"{folder}/{attack}.json" for attack in attacks]


def attackers(folder, attacks=SCORED):
    return [f"{folder}/attackers/{attack}.safetensors" for attack in attacks]


def attack_results(attacked):
    return [file for a in attacked for file in scores(f"{RESULTS}/{grid.folder(*a)}", config["attacks"])]


def checkpoints(folder):
    return [f"{folder}/{role}.safetensors" for role in grid.ROLES]


def trained(folder):
    """The checkpoints as outputs, which go when no planned job needs them any more, if config.yaml says so."""
    return checkpoints(folder) if config["keep_checkpoints"] else list(map(temp, checkpoints(folder)))


def signals_of(settings):
    return [f"{RESULTS}/{s.path}/signals.safetensors" for s in settings]


@cache
def made_from_originals(dataset, model):
    """For each setting that starts from these originals, in the first scope that has any, files that show that it has."""
    found = [[s for s in settings_of(scope) if (s.dataset, s.model) == (dataset, model)] for scope in SCOPES]
    return [
        signals_of([s]) + ([f"{RESULTS}/{s.path}/victim.safetensors"] if s.pruner else [])
        for s in next(filter(None, found))
    ]


def settings_of(scope):
    return list(dict.fromkeys(victim for victim, _ in SCOPES[scope]))


def recipe(stage):
    """A training stage's hyper-parameters, as a function of the wildcards."""
    return lambda wildcards: training_recipe(config, stage, wildcards.dataset)


def needs(stage):
    """The time and memory of a stage as functions of the job's wildcards and attempt."""

    def names(wildcards):
        return [*re.findall(r"[^/_]+", "_".join(wildcards)), config["attack_recipe"]]

    return {
        "runtime": lambda wildcards, attempt: attempt * minutes(stage, names(wildcards)),
        "mem_mb": lambda wildcards, attempt: attempt * megabytes(stage, names(wildcards)),
    }


def pairs(scope):
    """(dataset, model) of every original."""
    return [(s.dataset, s.model) for s in settings_of(scope) if s.pruner is None]


def families(scope):
    """(dataset, model, pruner) of every family of sparsities."""
    return list(dict.fromkeys((s.dataset, s.model, s.pruner) for s in settings_of(scope) if s.pruner))


def defended_pairs(scope):
    """(dataset, model) of every pair with defended victims."""
    return list(dict.fromkeys((s.dataset, s.model) for s in settings_of(scope) if s.defense))


def transfer_pairs(scope):
    """(dataset, model) of every pair with mismatched adversaries."""
    return list(dict.fromkeys((v.dataset, v.model) for v, a in SCOPES[scope] if a.startswith("shadows_")))


PAIR_FIGURES = {
    "accuracy_vs_sparsity": pairs,
    "frontier": defended_pairs,
    "defense_effect": defended_pairs,
    "transfer": transfer_pairs,
}


SIGNAL_FIGURES = ("signal_distributions", "gaps_per_class")


def report_files(scope):
    root = f"{RESULTS}/{scope}"
    tables = list(dict.fromkeys(s.dataset for s in settings_of(scope)))
    tables += [f"{d}_defenses" for d in dict.fromkeys(s.dataset for s in settings_of(scope) if s.defense)]
    figures = ["samia_vs_others", "gaps_vs_accuracy"]
    figures += [f"{figure}_{d}_{m}" for figure, of in PAIR_FIGURES.items() for d, m in of(scope)]
    figures += [f"{figure}_{d}_{m}_{p}" for figure in SIGNAL_FIGURES for d, m, p in families(scope)]
    return [
        *(f"{root}tables/{name}.csv" for name in ("attacks", "models", *tables)),
        *(f"{root}tables/{name}.html" for name in tables),
        *(f"{root}figures/{name}.{suffix}" for name in figures for suffix in ("pdf", "png")),
        *(f"{root}{name}" for name in ("claims.csv", "claims.md", "claims.html", "summary.txt")),
    ]


if NAMES_TARGETS:
    try:
        check_reports(sys.argv[1:], RESULTS, [file for scope in SCOPES for file in report_files(scope)])
    except grid.GridError as error:
        sys.exit(f"error: {error}")


def data_of(wildcards):
    dataset = wildcards.setting.split("/")[0]
    return f"{DATA}/{dataset}/{dataset}.safetensors"


def family(wildcards):
    """The settings of one pruner's family of sparsities, and with PPB as the claims have it."""
    return [
        s
        for s in settings_of(wildcards.scope)
        if (s.dataset, s.model, s.pruner) == (wildcards.dataset, wildcards.model, wildcards.pruner)
        and (s.defense is None or (s.defense == "ppb" and float(s.strength) == grid.PPB_STRENGTH))
    ]


def family_signals(wildcards):
    """The original's signals first, then those of the family's pruned settings."""
    pruned = family(wildcards)
    return signals_of([pruned[0].original, *pruned])


def family_labels(wildcards):
    return [f"{s.sparsity} + {s.defense} {s.strength}" if s.defense else s.sparsity for s in family(wildcards)]
