"""Gather a scope's attack results and its models' facts into attacks.csv and models.csv."""

from dataclasses import asdict

from job import logged

from miaprune import grid
from miaprune.extensions import register
from miaprune.files import load_metadata
from miaprune.report import results, tables

register(snakemake.config)

with logged(snakemake.log[0]):
    attacks = [
        results.read_result_in_place(path, snakemake.config["results_dir"], snakemake.params.seed)
        for path in snakemake.input.results
    ]
    tables.write_csv(snakemake.output.attacks, tables.attacks_table(attacks))
    models = [
        asdict(grid.Setting.parse(path)) | facts
        for path, signals in zip(snakemake.params.settings, snakemake.input.signals, strict=True)
        for facts in load_metadata(signals).values()
    ]
    tables.write_csv(snakemake.output.models, tables.models_table(models))
