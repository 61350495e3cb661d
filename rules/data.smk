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
