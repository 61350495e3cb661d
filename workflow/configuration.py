"""From config.yaml to what the rules use, and the checks of it, of targets and of files before any job starts."""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from miaprune import extensions, grid
from miaprune.entries import parameters_of
from miaprune.grid import GridError

CONFIG = Path(__file__).parents[1] / "config.yaml"
SCHEMA = Path(__file__).parent / "schemas/config.schema.json"
FOR_A_SHELL = re.compile(r"(?![\w@%+=:,./~-])[\x00-\x7f]")
"""What a shell does not take as it stands."""
INNER: dict[str, Callable[[], Iterable[str]]] = {"attackers": lambda: grid.ATTACKS, "scores": grid.families}
"""What a setting has in folders of its own: .safetensors of these names."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line: what is wrong, where, what would be right."""


def read(config: MutableMapping[str, Any]) -> None:
    """Turn a configuration in place into what the code uses, and check it.

    What it leaves out is as in our ``config.yaml``, from wherever and as whosever module the workflow runs.
    ``--config`` leaves numbers, true and false within a value as text, YAML takes 1e-3 for one, and 128.0 is whole:
    each becomes what ``workflow/schemas/config.schema.json`` says it is. Folders lose what leads nowhere
    (``results/../out``, the slash of ``results/``): Snakemake compares files by their names. Raises `ConfigError` or
    `GridError` on the first thing that is wrong.
    """
    import yaml
    from snakemake.utils import update_config

    schema = json.loads(SCHEMA.read_text())
    complete = yaml.safe_load(CONFIG.read_text())
    update_config(complete, config)
    config.clear()
    config.update(complete)
    for key, value in config.items():
        config[key] = _meant(value, schema["properties"].get(key, {}), schema["$defs"])
    for key in ("data_dir", "results_dir"):
        if isinstance(config.get(key), str) and config[key]:
            config[key] = os.path.normpath(config[key])
    _validate(config, schema)
    config["extensions"] = list(map(os.path.normpath, config["extensions"]))
    for own in config["own_datasets"].values():
        if "file" in own:
            own["file"] = os.path.normpath(own["file"])
    extensions.register(config)
    _check(config)


def _meant(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """A value as its schema means it; as it is where that leaves a choice, or nothing fits."""
    if reference := schema.get("$ref"):
        schema = definitions[reference.rpartition("/")[2]]
    if isinstance(value, Mapping):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        other = other if isinstance(other, Mapping) else {}
        return {key: _meant(each, known.get(key, other), definitions) for key, each in value.items()}
    if isinstance(value, list):
        return [_meant(each, schema.get("items", {}), definitions) for each in value]
    kind = schema.get("type")
    if not schema and isinstance(value, str):  # an option of the user's own: as YAML would have it
        if value in ("true", "false"):
            return value == "true"
        if NUMBER.fullmatch(value):
            return int(value) if value.lstrip("+-").isdigit() else float(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if kind in ("number", "integer") and isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _validate(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless the configuration is as its schema says."""
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import best_match

    # YAML has NaN and infinities, and a schema's minimum lets NaN pass.
    plain = Draft202012Validator.TYPE_CHECKER
    finite = plain.redefine("number", lambda _, value: plain.is_type(value, "number") and abs(value) < math.inf)
    error = best_match(validators.extend(Draft202012Validator, type_checker=finite)(schema).iter_errors(config))
    if error is not None:
        where = ".".join(["the configuration", *map(str, error.absolute_path)])
        if error.validator == "additionalProperties":
            for key in error.instance:
                grid.known(f"key in {where}:", key, error.schema["properties"])
        raise ConfigError(f"{where}: {error.message}")


def _check(config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` or `GridError` unless folders and names are such as can be used."""
    for key in ("results_dir", "data_dir"):
        if config[key].startswith(("~", "$")):
            raise ConfigError(f"{config[key]}: {key} is taken literally; write the path in full")
        if os.path.exists(config[key]) and not os.path.isdir(config[key]):
            raise ConfigError(f"{config[key]}: cannot write {key} there, it is no folder; set {key} or remove it")
    for name, own in config["own_datasets"].items():
        if "file" in own and not os.path.isfile(own["file"]):
            raise ConfigError(f"own_datasets.{name}: {own['file']}: no such file in {os.getcwd()}")
    for block, grids in ((config, [config]), (config["demo"], config["demo"]["grid"])):
        settings = grid.settings(*grids)
        grid.attacked(settings, block)
        for name, kept in block["parts"].items():
            for key, names in (("datasets", grid.DATASETS), ("models", grid.MODELS), ("pruners", grid.PRUNERS)):
                for value in kept.get(key, []):
                    grid.known(f"{key[:-1]} in part {name}:", value, names)
            for value in kept.get("sparsities", []):
                grid.sparsity_value(grid.written(value))
    for attack in config["attacks"]:
        grid.known("attack", attack, grid.ATTACKS)
    for name, options in config["defense_options"].items():
        grid.known("defense in defense_options:", name, grid.DEFENSES)
        if grid.DEFENSES[name].extension:  # of built-in ones the schema knows the options
            for option in options:
                grid.known(f"option in defense_options.{name}:", option, parameters_of(grid.DEFENSES[name].target))
    for name in {entry["defense"] for block in (config, config["demo"]) for entry in block["defenses"]}:
        if grid.DEFENSES[name].extension:
            there = {
                "strength",
                "data",
                "split",
                "seed",
                *config["finetuning"],
                *config["defense_options"].get(name, {}),
            }
            for option, needed in parameters_of(grid.DEFENSES[name].target).items():
                if needed and option not in there:
                    raise ConfigError(f"defense {name} needs {option!r}; give it in defense_options.{name}")
    grid.known("attack_recipe", config["attack_recipe"], config["attack_recipes"])


def check_targets(
    targets: Iterable[str], results_dir: str, data_dir: str, attacks: Sequence[str], seed: int, reports: Iterable[str]
) -> None:
    """Check every target below ``results_dir``: a setting's file, listed in config.yaml or not, or one of ``reports``.

    Those are the tables and figures of what config.yaml lists. Raises `GridError` where a data set, model, pruner,
    sparsity, defence, adversary or file does not exist. An adversary who only scores does so with the configured
    ``attacks``, no others. ``seed`` is the first of the run's.
    """
    reports = [os.path.relpath(report, results_dir) for report in reports]
    for target in targets:
        name = os.path.relpath(target, results_dir)
        parts = Path(name).parts
        if os.sep not in target or len(parts) < 2 or parts[0] in ("..", "logs", "benchmarks", "states"):
            continue  # a rule's name, or none of ours
        data = os.path.relpath(data_dir, results_dir)
        if data != "." and not data.startswith("..") and not os.path.relpath(target, data_dir).startswith(".."):
            continue
        own = os.path.normpath(os.path.join(results_dir, name))
        if own != (target if os.path.isabs(target) else os.path.relpath(target)):  # Snakemake compares these
            raise GridError(f"{target}: write it as results_dir is written: {own}")
        if name in reports:
            continue
        if parts[-2] in ("tables", "figures"):
            raise GridError(f"{target}: config.yaml's grid has nothing for it; it has {grid.nearest(name, reports)}")
        if len(parts) > 2:
            if parts[0] == f"seed_{seed}":
                own = os.path.join(results_dir, *parts[1:])
                raise GridError(f"{target}: {seed} is the first of config.yaml's seeds, whose results lie in {own}")
            _check_cell(target, results_dir, parts, attacks)


def _check_cell(target: str, results_dir: str, parts: Sequence[str], attacks: Sequence[str]) -> None:
    """Raise `GridError` unless a target is the file of a setting that can exist."""
    *folder, file = parts
    stem, suffix = os.path.splitext(file)
    inner = [*INNER[folder[-1]]()] if folder[-1] in INNER else None
    if inner and suffix != ".safetensors":
        raise GridError(f"{target}: no such target; write {os.path.splitext(target)[0]}.safetensors")
    if suffix not in (".json", ".safetensors"):
        like = os.path.normpath(os.path.join(target, "samia.safetensors" if file in INNER else "samia.json"))
        raise GridError(f"{target}: no such target; name a file of a setting: {like}")
    if inner:
        folder.pop()
    if folder[-2:-1] == ["references"]:  # {setting}/references/{chunk}
        grid.Setting.parse("/".join(folder[:-2]))
        if folder[-1] not in (chunks := grid.chunks(grid.MAX_REFERENCES)):
            raise GridError(
                f"{target}: no job makes these references; write {chunks[0]}, {chunks[1]}, ... {chunks[-1]}"
            )
        grid.known("file", file, ("models.safetensors", "margins.safetensors"))
        return
    victim, adversary = grid.attacked_in("/".join(folder))
    if adversary == "unaware" and victim.defense is None:
        raise GridError(f"{target}: only a defended victim has an unaware adversary; write pruner_sparsity/ppb_4")
    if adversary.startswith("shadows_"):
        shadows = adversary.removeprefix("shadows_")
        grid.Setting.parse(f"{victim.dataset}/{victim.model}/{shadows}")
        prunes_otherwise = victim.pruner and shadows not in (victim.variant, "original", "finetuned")
        if not prunes_otherwise or victim.version != victim.variant:
            raise GridError(f"{target}: a mismatched adversary's victim is undefended and pruned otherwise than it")
    if suffix == ".json":
        grid.known("attack", stem, grid.ATTACKS)
        if adversary != "matched" and stem not in attacks:
            raise GridError(f"{target}: {stem} is not among config.yaml's attacks; extend them")
    elif adversary == "matched":
        grid.known("file", stem, inner or (*grid.ROLES, "signals", "margins", "scores"))
    elif inner or stem != "scores":
        raise GridError(f"{target}: this adversary has results only, no {file}")


def check_place() -> None:
    """Raise `ConfigError` where Snakemake can start no job.

    It hands the path of its Python to a shell unquoted, and keeps its records in the working folder, which may be
    another user's checkout.
    """
    if FOR_A_SHELL.search(sys.executable):
        raise ConfigError(
            f"{sys.executable}: Snakemake starts no job with a Python whose path has spaces or quotes; move it"
        )
    if not os.access(".snakemake" if os.path.exists(".snakemake") else ".", os.W_OK):
        snakefile = shlex.quote(str(CONFIG.with_name("Snakefile")))
        raise ConfigError(f"{os.getcwd()}: cannot write here; start in a folder of yours with --snakefile {snakefile}")


def check_device(device: str) -> None:
    """Raise `ConfigError` if ``device`` is cuda and this machine has none; its driver tells sooner than torch."""
    if device == "cuda":
        try:
            missing = ctypes.CDLL("libcuda.so.1").cuInit(0) != 0
        except OSError:  # no driver
            missing = True
        if missing:
            raise ConfigError("device: there is no GPU that CUDA can use on this machine; set it to auto or cpu")


def check_files(results_dir: str, data_dir: str, datasets: Iterable[str], inputs: Iterable[str], seed: int) -> None:
    """Check what a run will write to and read from.

    Raises an `OSError` whose message is one line, if ``results_dir`` cannot be written or has no space left, if
    the archive of one of the ``datasets`` about to be prepared is damaged, or if one of the ``inputs`` is or is of
    another setting, role or seed; ``seed`` is the first of the run's.
    """
    from miaprune.files import load_metadata, whole

    try:
        with whole(Path(results_dir, ".writable")) as temporary:
            temporary.write_bytes(bytes(1 << 20))
        Path(results_dir, ".writable").unlink()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"{results_dir}: cannot write results there ({reason}); set results_dir or free it") from None
    for name in datasets:
        from miaprune.data.archives import check_archives

        check_archives(name, data_dir)
    for path in sorted(inputs):
        if path.endswith(".safetensors") and os.path.exists(path):
            _check_origin(path, results_dir, seed, load_metadata(path))


def _check_origin(path: str, results_dir: str, seed: int, about: Mapping[str, Any]) -> None:
    """Raise `FileError` if a file of a setting was made for another place or with another seed, or lacks a model."""
    from miaprune.files import FileError, check_facts

    folder, stem = os.path.split(os.path.splitext(os.path.relpath(path, results_dir))[0])
    folder, _, chunk = folder.partition("/references/")
    folder, inner = os.path.split(folder)
    if inner not in INNER:
        if stem not in (*grid.ROLES, "signals", "margins", "models", "scores"):
            return
        folder = os.path.join(folder, inner)
    setting, adversary = grid.attacked_in(folder)
    origin = {"setting": setting.name, "seed": seed if setting.seed is None else setting.seed}
    if stem in grid.ROLES:
        check_facts(path, about, origin | {"role": stem})
    elif inner == "attackers":
        check_facts(path, about, origin | {"attack": stem})
    elif "scores" in (inner, stem):
        check_facts(path, about, origin | {"adversary": adversary})
    else:
        for role, facts in about.items():
            check_facts(path, facts, origin | {"role": role})
        if chunk and (lacking := [role for role in grid.in_chunk(chunk) if role not in about]):
            raise FileError(f"{path}: lacks {stem} of {lacking[0]}; delete it and run again")


def training_recipe(config: Mapping[str, Any], stage: str, dataset: str) -> dict[str, Any]:
    """The hyper-parameters of ``training`` or ``finetuning``: tables and images differ in epochs."""
    return config[stage] | {"epochs": config[stage]["epochs"][grid.DATASETS[dataset].kind]}


def attack_options(config: Mapping[str, Any], attack: str, recipe: str | None = None) -> dict[str, Any]:
    """An attack's block of the configuration; of the ones that train, the configured recipe or another."""
    entry = grid.ATTACKS[attack]
    if entry.sees == "margins":
        return {"references": config["references"]}
    if entry.extension:
        return {}
    if not entry.network:
        return config.get(attack, {})
    found = config["attack_recipes"][recipe or config["attack_recipe"]]
    return found | {"epochs": found["epochs"]["samia" if attack == "samia" else "nn"]}
