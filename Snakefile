from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


# All that a config.yaml in the working folder, --configfile and --config leave out is as in ours (rules/common.smk).
if Path("config.yaml").exists():

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/prune.smk"
include: "rules/attack.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        all_of(GRID),
        report_files(""),


# The parts of `all`: every attack on undefended models, on controls, on defended models, and by mismatched adversaries.
rule attacks:
    input:
        all_of(grid.over_seeds([(setting, "matched") for setting in grid.settings(config)], config["seeds"])),


rule controls:
    input:
        all_of(grid.over_seeds([(s, "matched") for s in grid.controls(grid.settings(config), config)], config["seeds"])),


rule defenses:
    input:
        all_of((victim, adversary) for victim, adversary in GRID if victim.defense),


rule transfer:
    input:
        all_of((victim, adversary) for victim, adversary in GRID if adversary.startswith("shadows_")),


rule demo:
    input:
        all_of(DEMO),
        report_files("demo/"),


onstart:
    check_run()


onsuccess:
    resume.forget_finished(RESULTS)


onerror:
    resume.forget_finished(RESULTS)
    say_what_failed()
