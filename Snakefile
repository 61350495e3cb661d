from snakemake.utils import min_version

min_version("9.5")


configfile: "config.yaml"


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


rule attacks:
    input:
        attack_results(GRID),


rule demo:
    input:
        attack_results(DEMO),
        report_files("demo/"),
