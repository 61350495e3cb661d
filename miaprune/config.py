"""What the configuration says of a stage, and the checks of it, of targets and of files before any job starts."""

from __future__ import annotations

import ctypes
import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from miaprune import grid
from miaprune.grid import Attacked, GridError


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line: what is wrong, where, what would be right."""


def read_words(config: MutableMapping[str, Any]) -> None:
    """Read values in place as they are meant.

    ``--config`` leaves true and false as text; and Snakemake looks for a file by its shortest path, without the slash
    at the end of ``results_dir=results/``.
    """
    if config.get("keep_checkpoints") in ("true", "false"):
        config["keep_checkpoints"] = config["keep_checkpoints"] == "true"
    for key in ("data_dir", "results_dir"):
        if isinstance(config.get(key), str) and config[key]:
            config[key] = str(Path(config[key]))


def check_config(config: Mapping[str, Any], schema: str | Path) -> None:
    """Raise `ConfigError` or `GridError` on the first thing that is wrong with a configuration."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator(json.loads(Path(schema).read_text()))
    error = best_match(validator.iter_errors(config))
    if error is not None:
        where = ".".join(["the configuration", *map(str, error.absolute_path)])
        if error.validator == "additionalProperties":
            for key in error.instance:
                grid.known(f"key in {where}:", key, error.schema["properties"])
        raise ConfigError(f"{where}: {error.message}")
    _check_finite(config, "config.yaml")
    for key in ("results_dir", "data_dir"):
        if config[key].startswith(("~", "$")):
            raise ConfigError(f"{config[key]}: {key} is taken literally; write the path in full")
        if os.path.exists(config[key]) and not os.path.isdir(config[key]):
            raise ConfigError(f"{config[key]}: cannot write {key} there, it is no folder; set {key} or remove it")
    for block, grids in ((config, [config]), (config["demo"], config["demo"]["grid"])):
        settings = grid.settings(*grids)
        grid.attacked(settings, block)
        for name, kept in block["parts"].items():
            for key, names in (("datasets", grid.DATASETS), ("models", grid.MODELS), ("pruners", grid.PRUNERS)):
                for value in kept.get(key, []):
                    grid.known(f"{key[:-1]} in part {name}:", value, names)
            for value in kept.get("sparsities", []):
                grid.sparsity_value(value)
    for attack in config["attacks"]:
        grid.known("attack", attack, grid.ATTACKS)
    grid.known("attack_recipe", config["attack_recipe"], config["attack_recipes"])


def _check_finite(value: Any, where: str) -> None:
    """Raise `ConfigError` on a NaN or an infinity: YAML has them, and a schema's minimum lets NaN pass."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is not a finite number")
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        _check_finite(part, f"{where}.{key}")


def check_targets(
    arguments: Iterable[str], results_dir: str, attacked: Sequence[Attacked], attacks: Sequence[str]
) -> None:
    """Check every command-line argument that names a file of a setting below ``results_dir``.

    Raises `GridError` where the dataset, model, pruner, sparsity, defence, adversary or file is not one of the
    configured grid's. An adversary who only scores does so with the configured ``attacks``, no others.
    """
    settings = {victim for victim, _ in attacked}
    for argument in arguments:
        parts = Path(os.path.relpath(argument or ".", results_dir)).parts
        if argument.startswith("-") or len(parts) < 3 or parts[0] == ".." or parts[-2] in ("tables", "figures"):
            continue
        *folder, file = parts
        if len(parts) == 3 and parts[0] in grid.DATASETS and not file.endswith((".json", ".safetensors")):
            raise GridError(
                f"{argument}: a folder is no target; name a file in it: {argument.rstrip('/')}/samia.json, say"
            )
        if fitted := folder[-1] == "attackers":
            folder.pop()
        victim, adversary = grid.attacked_in("/".join(folder))
        shadows = grid.shadows_of(victim, adversary)
        if adversary == "unaware" and victim.defense is None:
            raise GridError(f"{argument}: only a defended victim has an unaware adversary; write pruner_sparsity/ppb_4")
        if adversary.startswith("shadows_") and (victim.defense or victim.pruner is None or shadows == victim):
            raise GridError(f"{argument}: a mismatched adversary's victim is undefended and pruned otherwise than it")
        for setting in (victim, shadows):
            if setting not in settings:
                fields = {key: value for key, value in vars(setting).items() if value is not None}
                lacking = [f"{k} {v}" for k, v in fields.items() if v not in {getattr(s, k) for s in settings}]
                near = [s for s in settings if (s.dataset, s.model) == (victim.dataset, victim.model)]
                names = sorted(s.path.split("/", 2)[2] for s in near if bool(s.defense) == bool(setting.defense))
                raise GridError(
                    f"{argument}: {setting.path} is not in config.yaml's grid"
                    + (f", which has no {' and no '.join(lacking)}" if lacking else "")
                    + "; extend its lists (there or by --config)"
                    + (f" or use one of {', '.join(names)}" if names else "")
                )
        stem, suffix = os.path.splitext(file)
        if suffix == ".json" and not fitted:
            grid.known("attack", stem, grid.ATTACKS)
            if adversary != "matched" and stem not in attacks:
                raise GridError(f"{argument}: {stem} is not among config.yaml's attacks; extend them")
        elif suffix == ".safetensors" and adversary == "matched":
            grid.known("file", stem, grid.ATTACKS if fitted else (*grid.ROLES, "signals"))
        else:
            raise GridError(f"{argument}: no such target; write {results_dir}/{'/'.join(folder)}/samia.json, say")


def check_reports(arguments: Iterable[str], results_dir: str, reports: Iterable[str]) -> None:
    """Check that every command-line argument that names a table or a figure below ``results_dir`` is in ``reports``.

    Else it would be drawn, after hours, of nothing. Raises `GridError`.
    """
    known = {os.path.relpath(report, results_dir) for report in reports}
    for argument in arguments:
        name = os.path.relpath(argument or ".", results_dir)
        kind = os.path.dirname(name).removeprefix("demo/").removesuffix("s")
        if kind in ("table", "figure") and name.endswith((".csv", ".html", ".pdf", ".png")) and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {os.path.join(results_dir, nearest[0])}?" if nearest else ""
            raise GridError(f"{argument}: config.yaml's grid has nothing for such a {kind}{hint}")


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
    another setting, role or ``seed``.
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
        from miaprune.datasets import check_archives

        check_archives(name, data_dir)
    for path in sorted(inputs):
        if path.endswith(".safetensors") and os.path.exists(path):
            _check_origin(path, results_dir, seed, load_metadata(path))


def _check_origin(path: str, results_dir: str, seed: int, about: Mapping[str, Any]) -> None:
    """Raise `FileError` if a file of a setting was made for another place, or with another seed."""
    from miaprune.files import check_facts

    folder, stem = os.path.split(os.path.splitext(os.path.relpath(path, results_dir))[0])
    if stem in grid.ROLES:
        check_facts(path, about, {"setting": folder, "role": stem, "seed": seed})
    elif os.path.basename(folder) == "attackers":
        check_facts(path, about, {"setting": os.path.dirname(folder), "attack": stem, "seed": seed})
    elif stem == "signals":
        for role, facts in about.items():
            check_facts(path, facts, {"setting": folder, "role": role, "seed": seed})


def training_recipe(config: Mapping[str, Any], stage: str, dataset: str) -> dict[str, Any]:
    """The hyper-parameters of ``training`` or ``finetuning``: tables and images differ in epochs."""
    kind = "table" if dataset in grid.TABLE_DATASETS else "image"
    return config[stage] | {"epochs": config[stage]["epochs"][kind]}


def attack_options(config: Mapping[str, Any], attack: str, recipe: str | None = None) -> dict[str, Any]:
    """An attack's block of the configuration; of the ones that train, the configured recipe or another."""
    if attack not in grid.NEURAL_ATTACKS:
        return config.get(attack, {})
    found = config["attack_recipes"][recipe or config["attack_recipe"]]
    return found | {"epochs": found["epochs"][grid.family_of(attack)]}
