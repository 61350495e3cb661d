"""Gather the scores of a setting's families of attacks in one file."""

import numpy as np
from job import logged

from miaprune.files import FileError, check_facts, load_arrays, save_tensors

with logged(snakemake.log[0]):
    gathered, about = load_arrays(snakemake.input[0])
    for path in snakemake.input[1:]:
        arrays, facts = load_arrays(path)
        check_facts(path, facts, {key: about[key] for key in ("setting", "seed")})
        if not np.array_equal(arrays["records"], gathered["records"]):
            raise FileError(f"{path}: scores of other records than {snakemake.input[0]}; delete it and run again")
        gathered |= arrays
    save_tensors(snakemake.output[0], gathered, about)
