"""Gather a scope's attack results and its models' facts into attacks.csv and models.csv."""

from dataclasses import asdict

from miaprune import grid, results
from miaprune.files import load_metadata
from miaprune.job import running

with running(snakemake.log[0]):
    attacks = [results.read_result(path) for path in snakemake.input.results]
    results.write_csv(snakemake.output.attacks, results.attacks_table(attacks))
    models = [
        asdict(grid.Setting.parse(path)) | facts
        for path, signals in zip(snakemake.params.settings, snakemake.input.signals, strict=True)
        for facts in load_metadata(signals).values()
    ]
    results.write_csv(snakemake.output.models, results.models_table(models))
