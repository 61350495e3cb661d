# Prune and fine-tune the victim and the five shadows of one setting.


rule prune:
    input:
        checkpoints(f"{RESULTS}/{{dataset}}/{{model}}/original"),
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    output:
        checkpoints(f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}"),
    log:
        f"{RESULTS}/logs/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/prune.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        recipe=recipe("finetuning"),
        seed=config["seed"],
        device=config["device"],
    script:
        "../workflow/scripts/prune.py"
