# Prune and fine-tune the victim and the five shadows of one setting: with or without a defence, and as a control without
# the one or the other.


rule prune:
    input:
        checkpoints(f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/original"),
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
        extensions=users_files,
    output:
        *map(passing, checkpoints(f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{version}}")),
    log:
        f"{RESULTS}/logs/{{repetition}}{{dataset}}/{{model}}/{{version}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{repetition}}{{dataset}}/{{model}}/{{version}}/prune.tsv"
    group:
        "{repetition}{dataset}/{model}/{version}"
    threads: threads_of
    resources:
        **needs("finetuning"),
        card=1,
    params:
        recipe=finetuning,
        defense=defense_of,
        seed=seed_of,
        device=config["device"],
    script:
        "../workflow/scripts/prune.py"


# Reference models beyond the shadows, as those are.
use rule prune as prune_references with:
    input:
        f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/original/references/{{chunk}}/models.safetensors",
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
        extensions=users_files,
    output:
        passing(f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{version}}/references/{{chunk}}/models.safetensors"),
    log:
        f"{RESULTS}/logs/{{repetition}}{{dataset}}/{{model}}/{{version}}/references/{{chunk}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{repetition}}{{dataset}}/{{model}}/{{version}}/references/{{chunk}}/prune.tsv"
    group:
        "{repetition}{dataset}/{model}/{version}/references/{chunk}"
