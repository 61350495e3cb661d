# One victim and five shadow models per (dataset, model), alike but for the data and the random draws.


rule train:
    input:
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
        extensions=users_files,
    output:
        checkpoints(f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/original"),  # kept: all pruned models start from them
    log:
        f"{RESULTS}/logs/{{repetition}}{{dataset}}/{{model}}/original/train.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{repetition}}{{dataset}}/{{model}}/original/train.tsv"
    threads: threads_of
    resources:
        **needs("training"),
        card=1,
    params:
        recipe=training,
        seed=seed_of,
        device=config["device"],
    script:
        "../workflow/scripts/train.py"


# Reference models beyond the shadows, some in one job and one file, split and trained as those are.
use rule train as train_references with:
    output:
        f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/original/references/{{chunk}}/models.safetensors",
    log:
        f"{RESULTS}/logs/{{repetition}}{{dataset}}/{{model}}/original/references/{{chunk}}/train.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{repetition}}{{dataset}}/{{model}}/original/references/{{chunk}}/train.tsv"
