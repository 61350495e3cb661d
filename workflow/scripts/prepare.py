"""Read a dataset's archive, downloading it if it is missing, and write it as one prepared file."""

from job import logged

from miaprune.data.datasets import prepare
from miaprune.extensions import register
from miaprune.files import load_metadata

register(snakemake.config)

with logged(snakemake.log[0]):
    prepare(snakemake.wildcards.dataset, snakemake.params.data_dir, snakemake.output[0])
    facts = load_metadata(snakemake.output[0])
    print(f"{facts['name']}: {facts['records']} records of {facts['input_shape']}, {facts['classes']} classes")
    print("checked:", "; ".join(facts["checked"]) or "nothing")
    if facts.get("names"):
        print("labels:", ", ".join(f"{i} is {name}" for i, name in enumerate(facts["names"])))
