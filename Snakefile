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
        attack_results(GRID),
        report_files(""),


# The parts of `all`: every attack on undefended models, on defended ones, and by mismatched adversaries.
rule attacks:
    input:
        attack_results(
            (victim, adversary) for victim, adversary in GRID if (victim.defense, adversary) == (None, "matched")
        ),


rule defenses:
    input:
        attack_results((victim, adversary) for victim, adversary in GRID if victim.defense),


rule transfer:
    input:
        attack_results((victim, adversary) for victim, adversary in GRID if adversary.startswith("shadows_")),


rule demo:
    input:
        attack_results(DEMO),
        report_files("demo/"),


onstart:
    check_run()


onsuccess:
    resume.forget_finished(RESULTS)


onerror:
    resume.forget_finished(RESULTS)
    say_what_failed()
