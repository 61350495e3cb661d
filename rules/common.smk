# The grid's questions, answered by functions; and the checks that stop a bad run before any job starts.
import os
import re
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser

sys.path.insert(0, f"{Path(workflow.current_basedir).parent}/workflow")
import configuration
from configuration import attack_options, training_recipe
from needs import megabytes, minutes

from miaprune import catalog, grid
from miaprune.training import resume

try:
    configuration.read(config)
    GRID = grid.over_seeds(grid.attacked(grid.settings(config), config), config["seeds"])
    DEMO = grid.attacked(grid.settings(*config["demo"]["grid"]), config["demo"])
except (configuration.ConfigError, grid.GridError) as error:
    sys.exit(f"error: {error}")


RESULTS = config["results_dir"]
DATA = config["data_dir"]
# What is attacked, by the folder of its report: the whole grid's lies in {results_dir}, the demo's in demo/.
SCOPES = {"": GRID, "demo/": DEMO}


def any_of(names):
    return "|".join(sorted(map(re.escape, names)))


# A pattern of no name.
NOTHING = "(?!)"
NUMBER = r"[0-9][0-9.e+-]*"
# Of all seeds but the first.
REPETITION = f"(seed_({grid.SEED})/)?"
PAIR = f"{REPETITION}({any_of(grid.DATASETS)})/({any_of(grid.MODELS)})"
PRUNED = f"({any_of(grid.PRUNERS)})_{NUMBER}"
VERSION = f"({grid.FINETUNED}|{PRUNED}(/({grid.UNTUNED}|({any_of(grid.DEFENSES)})_{NUMBER}))?)"


wildcard_constraints:
    dataset=any_of(grid.DATASETS),
    model=any_of(grid.MODELS),
    pruner=any_of(grid.PRUNERS),
    repetition=REPETITION,
    version=VERSION,
    undefended=f"{PAIR}/{PRUNED}",
    defense=any_of(grid.DEFENSES),
    strength=NUMBER,
    setting=f"{PAIR}/(original|{VERSION})",
    chunk=r"[0-9]+-[0-9]+",
    variant=PRUNED,
    shadows=PRUNED,
    scope=any_of(SCOPES),


# The configured attacks in one order, whatever theirs: by it those adversaries score who train nothing.
SCORED = [attack for attack in grid.ATTACKS if attack in config["attacks"]]


FAMILIES = [name for name, attacks in grid.families().items() if set(attacks) & set(SCORED)]


def results(folder, attacks=SCORED):
    return [f"{folder}/{attack}.json" for attack in attacks]


def attackers(folder, attacks=SCORED):
    return [f"{folder}/attackers/{attack}.safetensors" for attack in attacks]


def attack_results(attacked):
    return [file for a in attacked for file in results(f"{RESULTS}/{grid.folder(*a)}", config["attacks"])]


def all_of(attacked):
    """Results and every record's scores."""
    attacked = list(attacked)
    return [*attack_results(attacked), *(f"{RESULTS}/{grid.folder(*a)}/scores.safetensors" for a in attacked)]


def checkpoints(folder):
    return [f"{folder}/{role}.safetensors" for role in grid.ROLES]


def passing(file):
    """A file of pruned models as an output, which goes when no planned job needs it any more, if config.yaml says so."""
    return file if config["keep_checkpoints"] else temp(file)


def margins(wildcards):
    """A setting's margins: of victim and shadows, and of as many further references as config.yaml asks for."""
    folder = f"{RESULTS}/{wildcards.setting}"
    further = [f"{folder}/references/{chunk}/margins.safetensors" for chunk in grid.chunks(config["references"])]
    return [f"{folder}/margins.safetensors", *further]


def signals_of(settings):
    return [f"{RESULTS}/{s.path}/signals.safetensors" for s in settings]


def scored_of(scope):
    """The first seed's settings that a matched adversary attacks, without controls: each seed attacks other records."""
    return [
        victim
        for victim, adversary in SCOPES[scope]
        if adversary == "matched" and victim.seed is None and not grid.is_control(victim)
    ]


def settings_of(scope):
    return list(dict.fromkeys(victim for victim, _ in SCOPES[scope]))


def seed_of(wildcards):
    """The seed that a job's folder names: the first of config.yaml's, or another."""
    named = re.match(f"seed_({grid.SEED})/", next(iter(wildcards), ""))
    return int(named[1]) if named else config["seeds"][0]


def version_of(wildcards):
    return grid.Setting.parse(f"{wildcards.dataset}/{wildcards.model}/{wildcards.version}")


def sources_of(dataset):
    """The files that a user's own data set is prepared from; none of a built-in one."""
    entry = grid.DATASETS[dataset]
    if entry.of:
        return [f"{DATA}/{entry.of}/{entry.of}.safetensors"]
    return [entry.file] if entry.file else catalog.files_of([entry])


def users_files(wildcards):
    """The users' files that a job runs, as inputs of it: its network's, its pruner's and its defence's, if it has any."""
    if not config["extensions"]:
        return []
    if "setting" in wildcards.keys():
        setting = grid.Setting.parse(wildcards.setting)
    elif "version" in wildcards.keys():
        setting = version_of(wildcards)
    else:
        setting = grid.Setting(wildcards.dataset, wildcards.model)
    named = (grid.MODELS, setting.model), (grid.PRUNERS, setting.pruner), (grid.DEFENSES, setting.defense)
    return catalog.files_of(those[name] for those, name in named if name)


def attacks_files(attacks):
    """The users' files that these attacks come from."""
    return catalog.files_of(grid.ATTACKS[attack] for attack in attacks)


def defense_of(wildcards):
    """What a defence's strengths have in common, if the version of the model is defended."""
    return config["defense_options"].get(version_of(wildcards).defense, {})


def training(wildcards):
    """The hyper-parameters of an original's training."""
    return training_recipe(config, "training", wildcards.dataset)


def finetuning(wildcards):
    """Those of what follows pruning, if anything does."""
    untuned = version_of(wildcards).tuning == grid.UNTUNED
    return {} if untuned else training_recipe(config, "finetuning", wildcards.dataset)


def needs(stage):
    """The time and memory of a stage as functions of the job's wildcards and attempt."""

    def names(wildcards):
        parts = re.findall(r"[^/ ]+", " ".join(wildcards))
        # Of l1_0.7 and adv_2 what stands before the number, too.
        return [*parts, *(re.sub(f"_{NUMBER}$", "", part) for part in parts), config["attack_recipe"]]

    return {
        "runtime": lambda wildcards, attempt: attempt * minutes(stage, names(wildcards)),
        "mem_mb": lambda wildcards, attempt: attempt * megabytes(stage, names(wildcards)),
    }


def pairs(scope):
    """(dataset, model) of every original."""
    return list(dict.fromkeys((s.dataset, s.model) for s in settings_of(scope) if s.pruner is None))


def families(scope):
    """(dataset, model, pruner) of every family of sparsities."""
    return list(
        dict.fromkeys((s.dataset, s.model, s.pruner) for s in settings_of(scope) if s.pruner and not grid.is_control(s))
    )


def defended_pairs(scope):
    """(dataset, model) of every pair with defended victims."""
    return list(dict.fromkeys((s.dataset, s.model) for s in settings_of(scope) if s.defense))


def transfer_pairs(scope):
    """(dataset, model) of every pair with mismatched adversaries."""
    return list(dict.fromkeys((v.dataset, v.model) for v, a in SCOPES[scope] if a.startswith("shadows_")))


def controlled_pairs(scope):
    """(dataset, model) of every pair with controls."""
    return list(dict.fromkeys((s.dataset, s.model) for s in settings_of(scope) if grid.is_control(s)))


PAIR_FIGURES = {
    "accuracy_vs_sparsity": pairs,
    "effects": controlled_pairs,
    "leak_vs_accuracy": controlled_pairs,
    "frontier": defended_pairs,
    "frontier_strongest": defended_pairs,
    "defense_effect": defended_pairs,
    "transfer": transfer_pairs,
}
SIGNAL_FIGURES = ("signal_distributions", "gaps_per_class", "margin_distributions")


FORMATS = ("pdf", "png", "svg")
# A data set's tables for people, by what their names end with.
DATASET_TABLES = {"": "paper_table", "_controls": "controls_table", "_defenses": "defense_table"}


def attack_figures(scope):
    """Names of the figures that are drawn from the attacks table alone."""
    others = ("roc", *SIGNAL_FIGURES)
    return [name for figure, names in figures(scope).items() if figure not in others for name in names]


def figures(scope):
    """Names of all figures, by the function that draws them."""
    of_pairs = {
        figure: [f"{figure}_{d}_{m}" for d, m in of(scope)] for figure, of in (PAIR_FIGURES | {"roc": pairs}).items()
    }
    of_families = {figure: [f"{figure}_{d}_{m}_{p}" for d, m, p in families(scope)] for figure in SIGNAL_FIGURES}
    return {figure: [figure] for figure in ("samia_vs_others", "gaps_vs_accuracy")} | of_pairs | of_families


def tables_of(scope):
    """The tables and texts of a scope."""
    root, of = f"{RESULTS}/{scope}", settings_of(scope)
    names = ["attacks", "models", "exposed", "effects"]
    for kind, there in {
        "": of,
        "_controls": filter(grid.is_control, of),
        "_defenses": (s for s in of if s.defense),
    }.items():
        names += [f"{dataset}{kind}" for dataset in dict.fromkeys(s.dataset for s in there)]
    texts = [f"{root}{name}" for name in ("claims.csv", "claims.md", "summary.txt")]
    return [*texts, *(f"{root}tables/{name}.csv" for name in names)]


def report_files(scope):
    drawn = [name for names in figures(scope).values() for name in names]
    return [
        *tables_of(scope),
        *(f"{RESULTS}/{scope}figures/{name}.{suffix}" for name in drawn for suffix in FORMATS),
        f"{RESULTS}/{scope}report.html",
    ]


def targets():
    """What the command line asks for, as Snakemake itself reads it; it has not yet told its workflow."""
    if Path(sys.argv[0]).name not in ("snakemake", "__main__.py"):  # started from Python
        return []
    return get_argument_parser().parse_known_args(sys.argv[1:])[0].targets


if workflow.modifier.is_main_snakefile():  # else targets may be of other workflows, too
    try:
        configuration.check_place()
        configuration.check_targets(
            targets(),
            RESULTS,
            DATA,
            config["attacks"],
            config["seeds"][0],
            [file for scope in SCOPES for file in report_files(scope)],
        )
    except (configuration.ConfigError, grid.GridError) as error:
        sys.exit(f"error: {error}")


def check_run():
    """What can be known of a run's machine and files before its first job starts."""
    needed = list(workflow.dag.needrun_jobs())
    made = {str(file) for job in needed for file in job.output}
    try:
        if workflow.local_exec:
            for device in {job.params.get("device") for job in needed}:
                configuration.check_device(device)
        configuration.check_files(
            RESULTS,
            DATA,
            [job.wildcards.dataset for job in needed if job.rule.name == "prepare"],
            {str(file) for job in needed for file in job.input} - made - {e.file for e in grid.DATASETS.values()},
            config["seeds"][0],
        )
    except (configuration.ConfigError, grid.GridError, OSError) as error:
        sys.exit(f"error: {error}")


def say_what_failed():
    """End with the logs of jobs that have begun and not finished; those of no other do anybody any good."""
    logs = sorted(str(log.with_suffix("")) for log in Path(RESULTS, "logs").rglob("*.unfinished"))
    print(
        "\nNot all is done; the same command tries again.", "Begun and not finished, see:" * bool(logs), file=sys.stderr
    )
    print(*(f"  {log}" for log in logs), sep="\n", file=sys.stderr)


def dataset_of(wildcards):
    if "dataset" in wildcards.keys():
        return wildcards.dataset
    return re.sub(f"^{REPETITION}", "", wildcards.setting).split("/")[0]


def data_of(wildcards):
    dataset = dataset_of(wildcards)
    return f"{DATA}/{dataset}/{dataset}.safetensors"


def threads_of(wildcards):
    """Two where networks compute on images of some size: one alone would leave a core idle, as six train in a job.

    No more and no fewer where there are two: the rounding depends on it.
    """
    data = grid.DATASETS[dataset_of(wildcards)]
    small = data.kind != "image" or (data.shape and data.shape[-1] < 32)  # the digits
    return 1 if small else 2


def family(wildcards):
    """The first seed's settings of one pruner's family of sparsities, and with PPB as the claims have it."""
    return [
        s
        for s in settings_of(wildcards.scope)
        if s.seed is None
        and s.tuning is None
        and (s.dataset, s.model, s.pruner) == (wildcards.dataset, wildcards.model, wildcards.pruner)
        and (s.defense is None or (s.defense == "ppb" and float(s.strength) == grid.PPB_STRENGTH))
    ]


def family_signals(wildcards):
    """The original's signals first, then those of the family's pruned settings."""
    pruned = family(wildcards)
    return signals_of([pruned[0].original, *pruned])


def family_margins(wildcards):
    """Margins of the same settings."""
    return [signals.replace("signals.safetensors", "margins.safetensors") for signals in family_signals(wildcards)]


def family_labels(wildcards):
    return [f"{s.sparsity} + {s.defense} {s.strength}" if s.defense else s.sparsity for s in family(wildcards)]
