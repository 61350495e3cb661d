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


rule paper_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        csv=f"{RESULTS}/{{scope}}tables/{{dataset}}.csv",
        page=report(
            f"{RESULTS}/{{scope}}tables/{{dataset}}.html",
            caption="../workflow/report/page.rst",
            category="Tables",
            labels={"table": "{dataset}"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}.log",
    localrule: True
    params:
        table="paper_table",
    script:
        "../workflow/scripts/dataset_table.py"


rule controls_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        csv=f"{RESULTS}/{{scope}}tables/{{dataset}}_controls.csv",
        page=report(
            f"{RESULTS}/{{scope}}tables/{{dataset}}_controls.html",
            caption="../workflow/report/page.rst",
            category="Tables",
            labels={"table": "{dataset}, controls"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}_controls.log",
    localrule: True
    params:
        table="controls_table",
    script:
        "../workflow/scripts/dataset_table.py"


rule defense_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        csv=f"{RESULTS}/{{scope}}tables/{{dataset}}_defenses.csv",
        page=report(
            f"{RESULTS}/{{scope}}tables/{{dataset}}_defenses.html",
            caption="../workflow/report/page.rst",
            category="Tables",
            labels={"table": "{dataset}, defences"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}_defenses.log",
    localrule: True
    params:
        table="defense_table",
    script:
        "../workflow/scripts/dataset_table.py"


rule claims:
    input:
        attacks=f"{RESULTS}/{{scope}}tables/attacks.csv",
        models=f"{RESULTS}/{{scope}}tables/models.csv",
    output:
        csv=f"{RESULTS}/{{scope}}claims.csv",
        md=f"{RESULTS}/{{scope}}claims.md",
        page=report(
            f"{RESULTS}/{{scope}}claims.html",
            caption="../workflow/report/page.rst",
            category="Claims",
            labels={"claims": "the verdicts"},
        ),
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
            pdf=[f"{RESULTS}/{scope_folder}figures/{figure}.pdf" for figure in attack_figures(scope_folder)],
            png=[
                report(
                    f"{RESULTS}/{scope_folder}figures/{figure}.png",
                    caption="../workflow/report/figure.rst",
                    category="Figures",
                    labels={"figure": figure},
                )
                for figure in attack_figures(scope_folder)
            ],
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
            exposed=f"{RESULTS}/{scope_folder}tables/exposed.csv",
            pdf=[f"{RESULTS}/{scope_folder}figures/roc_{d}_{m}.pdf" for d, m in pairs(scope_folder)],
            png=[
                report(
                    f"{RESULTS}/{scope_folder}figures/roc_{d}_{m}.png",
                    caption="../workflow/report/figure.rst",
                    category="Figures",
                    labels={"figure": f"roc_{d}_{m}"},
                )
                for d, m in pairs(scope_folder)
            ],
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
            f"{kind}_pdf": f"{RESULTS}/{{scope}}figures/{kind}_{{dataset}}_{{model}}_{{pruner}}.pdf"
            for kind in SIGNAL_FIGURES
        },
        **{
            f"{kind}_png": report(
                f"{RESULTS}/{{scope}}figures/{kind}_{{dataset}}_{{model}}_{{pruner}}.png",
                caption="../workflow/report/figure.rst",
                category="Figures",
                labels={"figure": f"{kind}, {{dataset}}, {{model}}, {{pruner}}"},
            )
            for kind in SIGNAL_FIGURES
        },
    log:
        f"{RESULTS}/logs/{{scope}}figures/signals_{{dataset}}_{{model}}_{{pruner}}.log",
    localrule: True
    params:
        labels=family_labels,
        seed=config["seeds"][0],
    script:
        "../workflow/scripts/signal_figures.py"
