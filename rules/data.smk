# Archives to one prepared file per dataset, which every job then opens in well under a second.


rule prepare:
    output:
        f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    log:
        f"{RESULTS}/logs/{{dataset}}/prepare.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/prepare.tsv"
    resources:
        **needs("prepare"),
    params:
        data_dir=lambda wildcards, output: str(Path(output[0]).parents[1]),
    script:
        "../workflow/scripts/prepare.py"


# The same of what config.yaml names under own_datasets: a part of another data set's prepared file.
use rule prepare as prepare_own with:
    input:
        lambda wildcards: f"{DATA}/{{of}}/{{of}}.safetensors".format(**config["own_datasets"][wildcards.dataset]),
    wildcard_constraints:
        dataset=any_of(config["own_datasets"]) or NOTHING,
    params:
        data_dir=lambda wildcards, output: str(Path(output[0]).parents[1]),
        own=lambda wildcards: config["own_datasets"][wildcards.dataset],


ruleorder: prepare_own > prepare
