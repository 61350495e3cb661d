# Tables, verdicts on the claims, and figures of a scope: the whole grid, or the demo.


rule tables:
    input:
        results=lambda wildcards: attack_results(SCOPES[wildcards.scope]),
        signals=lambda wildcards: signals_of(settings_of(wildcards.scope)),
    output:
        attacks=f"{RESULTS}/{{scope}}tables/attacks.csv",
        models=f"{RESULTS}/{{scope}}tables/models.csv",
    log:
        f"{RESULTS}/logs/{{scope}}tables.log",
    localrule: True
    params:
        settings=lambda wildcards: [s.path for s in settings_of(wildcards.scope)],
        seed=config["seeds"][0],
    script:
        "../workflow/scripts/tables.py"


# One data set's results for people: as the paper prints them, its controls, and by defence.
rule dataset_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        f"{RESULTS}/{{scope}}tables/{{dataset}}{{kind}}.csv",
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}{{kind}}.log",
    wildcard_constraints:
        kind=any_of(DATASET_TABLES),
    localrule: True
    params:
        table=lambda wildcards: DATASET_TABLES[wildcards.kind],
    script:
        "../workflow/scripts/dataset_table.py"


rule claims:
    input:
        attacks=f"{RESULTS}/{{scope}}tables/attacks.csv",
        models=f"{RESULTS}/{{scope}}tables/models.csv",
    output:
        csv=f"{RESULTS}/{{scope}}claims.csv",
        md=f"{RESULTS}/{{scope}}claims.md",
        summary=f"{RESULTS}/{{scope}}summary.txt",
        effects=f"{RESULTS}/{{scope}}tables/effects.csv",
    log:
        f"{RESULTS}/logs/{{scope}}claims.log",
    localrule: True
    script:
        "../workflow/scripts/claims.py"


# All figures of a scope that the attacks table is enough for: one job, as they take less than starting one for each.
for scope_folder in SCOPES:

    rule:
        name:
            f"figures{'_' if scope_folder else ''}{scope_folder.rstrip('/')}"
        input:
            f"{RESULTS}/{scope_folder}tables/attacks.csv",
        output:
            **{
                suffix: [
                    f"{RESULTS}/{scope_folder}figures/{figure}.{suffix}" for figure in attack_figures(scope_folder)
                ]
                for suffix in FORMATS
            },
        log:
            f"{RESULTS}/logs/{scope_folder}figures.log",
        localrule: True
        params:
            pairs={figure: of(scope_folder) for figure, of in PAIR_FIGURES.items()},
        script:
            "../workflow/scripts/figures.py"


# The same of every record's scores.
for scope_folder in SCOPES:

    rule:
        name:
            f"scored_records{'_' if scope_folder else ''}{scope_folder.rstrip('/')}"
        input:
            attacks=f"{RESULTS}/{scope_folder}tables/attacks.csv",
            scores=[f"{RESULTS}/{s.path}/scores.safetensors" for s in scored_of(scope_folder)],
        output:
            **{
                suffix: [f"{RESULTS}/{scope_folder}figures/roc_{d}_{m}.{suffix}" for d, m in pairs(scope_folder)]
                for suffix in FORMATS
            },
            exposed=f"{RESULTS}/{scope_folder}tables/exposed.csv",
        log:
            f"{RESULTS}/logs/{scope_folder}scored_records.log",
        localrule: True
        params:
            settings=[s.path for s in scored_of(scope_folder)],
            pairs=pairs(scope_folder),
            seed=config["seeds"][0],
        script:
            "../workflow/scripts/scored_records.py"


rule signal_figures:
    input:
        signals=family_signals,
        margins=family_margins,
    output:
        **{
            f"{kind}_{suffix}": f"{RESULTS}/{{scope}}figures/{kind}_{{dataset}}_{{model}}_{{pruner}}.{suffix}"
            for kind in SIGNAL_FIGURES
            for suffix in FORMATS
        },
    log:
        f"{RESULTS}/logs/{{scope}}figures/signals_{{dataset}}_{{model}}_{{pruner}}.log",
    localrule: True
    params:
        labels=family_labels,
        seed=config["seeds"][0],
    script:
        "../workflow/scripts/signal_figures.py"


# The page that all of it is looked at in.
for scope_folder in SCOPES:

    rule:
        name:
            f"page{'_' if scope_folder else ''}{scope_folder.rstrip('/')}"
        input:
            **{
                figure: [f"{RESULTS}/{scope_folder}figures/{name}.svg" for name in names]
                for figure, names in figures(scope_folder).items()
            },
            attacks=f"{RESULTS}/{scope_folder}tables/attacks.csv",
            models=f"{RESULTS}/{scope_folder}tables/models.csv",
        output:
            report(f"{RESULTS}/{scope_folder}report.html", category="The page"),
        log:
            f"{RESULTS}/logs/{scope_folder}page.log",
        localrule: True
        params:
            seed=config["seeds"][0],
            figures=list(figures(scope_folder)),
            files=[os.path.relpath(file, f"{RESULTS}/{scope_folder}") for file in tables_of(scope_folder)],
            results="../" if scope_folder else "",
        script:
            "../workflow/scripts/page.py"
