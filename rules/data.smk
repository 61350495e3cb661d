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


# The same of what is the user's own: prepared from a part of another data set, from a file, or by an extension.
use rule prepare as prepare_own with:
    input:
        lambda wildcards: sources_of(wildcards.dataset),
    wildcard_constraints:
        dataset=any_of(name for name in grid.DATASETS if sources_of(name)) or NOTHING,
    params:
        data_dir=lambda wildcards, output: str(Path(output[0]).parents[1]),
        own=lambda wildcards: config["own_datasets"].get(wildcards.dataset, {}),


ruleorder: prepare_own > prepare
