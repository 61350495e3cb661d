# Archives to one prepared file per dataset, which every job then opens in well under a second.


rule prepare:
    output:
        f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    log:
        f"{RESULTS}/logs/{{dataset}}/prepare.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/prepare.tsv"
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        data_dir=DATA,
    script:
        "../workflow/scripts/prepare.py"
