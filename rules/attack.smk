# Signals and margins of a setting's six models, then attacks on them: an attack never sees a model.


rule signals:
    input:
        checkpoints(f"{RESULTS}/{{setting}}"),
        data=data_of,
        extensions=users_files,
    output:
        signals=f"{RESULTS}/{{setting}}/signals.safetensors",
        margins=f"{RESULTS}/{{setting}}/margins.safetensors",
    log:
        f"{RESULTS}/logs/{{setting}}/signals.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/signals.tsv"
    group:
        "{setting}"
    threads: threads_of
    resources:
        **needs("signals"),
        card=1,
    params:
        **config["signals"],
        seed=seed_of,
        device=config["device"],
    script:
        "../workflow/scripts/signals.py"


rule reference_margins:
    input:
        models=f"{RESULTS}/{{setting}}/references/{{chunk}}/models.safetensors",
        data=data_of,
        extensions=users_files,
    output:
        f"{RESULTS}/{{setting}}/references/{{chunk}}/margins.safetensors",
    log:
        f"{RESULTS}/logs/{{setting}}/references/{{chunk}}/margins.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/references/{{chunk}}/margins.tsv"
    group:
        "{setting}/references/{chunk}"
    threads: threads_of
    resources:
        **needs("signals"),
        card=1,
    params:
        device=config["device"],
    script:
        "../workflow/scripts/reference_margins.py"


# A setting's jobs, from pruning on, are one group: one submission to a cluster, on one GPU.
#
# A family of attacks is one job: it fits each on the setting's shadows and scores the setting's victim.
for family_name, members in grid.families().items():
    family_sees, trains = grid.ATTACKS[members[0]].sees, grid.ATTACKS[members[0]].network

    rule:
        name:
            f"attack_{family_name}"
        input:
            victim=f"{RESULTS}/{{setting}}/signals.safetensors",
            margins=margins if family_sees == "margins" else [],
            extensions=attacks_files(members),
        output:
            results(f"{RESULTS}/{{setting}}", members),
            attackers=attackers(f"{RESULTS}/{{setting}}", members),
            scores=f"{RESULTS}/{{setting}}/scores/{family_name}.safetensors",
        log:
            f"{RESULTS}/logs/{{setting}}/attack_{family_name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/{{setting}}/attack_{family_name}.tsv"
        group:
            # With further references it waits for other submissions, and the rest is not to wait with it.
            "{setting}" if family_sees != "margins" or config["references"] == grid.SHADOWS else "{setting}/references"
        threads: 1
        resources:
            **needs(family_name),
            card=int(trains),
        params:
            options={attack: attack_options(config, attack) for attack in members},
            seed=seed_of,
            device=config["device"],
        script:
            "../workflow/scripts/attack.py"


rule scores:
    input:
        [f"{RESULTS}/{{setting}}/scores/{name}.safetensors" for name in FAMILIES],
    output:
        f"{RESULTS}/{{setting}}/scores.safetensors",
    log:
        f"{RESULTS}/logs/{{setting}}/scores.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/scores.tsv"
    group:
        "{setting}" if config["references"] == grid.SHADOWS else "{setting}/references"
    threads: 1
    resources:
        **needs("score"),
    script:
        "../workflow/scripts/scores.py"


# The unaware and the mismatched adversaries train nothing: their attackers were fitted on another setting's shadows for
# that setting's own results, and only score this victim. That is next to nothing, so one job scores with all
# attacks; another attack rescores the others.
rule unaware:
    input:
        victim=f"{RESULTS}/{{undefended}}/{{defense}}_{{strength}}/signals.safetensors",
        margins=[f"{RESULTS}/{{undefended}}/{{defense}}_{{strength}}/margins.safetensors"],
        attackers=attackers(f"{RESULTS}/{{undefended}}"),
        extensions=attacks_files(SCORED),
    output:
        results(f"{RESULTS}/{{undefended}}/{{defense}}_{{strength}}/unaware"),
        scores=f"{RESULTS}/{{undefended}}/{{defense}}_{{strength}}/unaware/scores.safetensors",
    log:
        f"{RESULTS}/logs/{{undefended}}/{{defense}}_{{strength}}/unaware/score.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{undefended}}/{{defense}}_{{strength}}/unaware/score.tsv"
    group:
        "{undefended}/{defense}_{strength}"
    threads: 1
    resources:
        **needs("score"),
    params:
        options={attack: attack_options(config, attack) for attack in SCORED},
        seed=seed_of,
        device="cpu",  # scoring is cheap, and the mismatched adversaries ask for no GPU
    script:
        "../workflow/scripts/attack.py"


# Those of one dataset and model are one group: one submission to a cluster, without a GPU.
use rule unaware as mismatched with:
    input:
        victim=f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{variant}}/signals.safetensors",
        margins=[f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{variant}}/margins.safetensors"],
        attackers=attackers(f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{shadows}}"),
        extensions=attacks_files(SCORED),
    output:
        results(f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{variant}}/shadows_{{shadows}}"),
        scores=f"{RESULTS}/{{repetition}}{{dataset}}/{{model}}/{{variant}}/shadows_{{shadows}}/scores.safetensors",
    log:
        f"{RESULTS}/logs/{{repetition}}{{dataset}}/{{model}}/{{variant}}/shadows_{{shadows}}/score.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{repetition}}{{dataset}}/{{model}}/{{variant}}/shadows_{{shadows}}/score.tsv"
    group:
        "{repetition}{dataset}/{model}/mismatched"
