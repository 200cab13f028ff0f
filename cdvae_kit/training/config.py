"""How a model is trained: validated, frozen settings that are stored beside what they gave; presets; overrides.

A preset is a TOML file inside the package with the tables `[model]` and `[training]`. What `[model]` means is the
models' business: here it is a plain table, checked against a schema where the caller gives one.
"""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cdvae_kit.training.preset_files import PRESETS
from cdvae_kit.training.preset_files import preset_names as preset_names

LoggerName = Literal["csv", "tensorboard", "wandb"]


class SettingsError(ValueError):
    """A preset, key or value of the settings that there is not, and what to write instead."""


class TrainingConfig(BaseModel):
    """One training run: the autoencoder first, then the prior on its codes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: int | None = Field(None, ge=1)
    """Passes over the training crystals. Of `epochs`, `max_steps` and `max_minutes` the first that is reached ends."""
    max_steps: int | None = Field(None, ge=1)
    """Steps of the optimiser, skipped ones included. The learning rate falls with the share of steps done."""
    max_minutes: float | None = Field(None, gt=0.0)
    """Wall-clock minutes, validation included, the time before a resume too. The learning rate follows the clock, so
    that two runs of one seed differ: prefer `max_steps`."""
    batch_size: int = Field(64, ge=1)
    """Crystals in a step, over all devices together."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Of Adam, after warm-up; it falls to `final_learning_rate` times this along a cosine."""
    final_learning_rate: float = Field(0.002, ge=0.0, le=1.0)
    """Share of the learning rate that is left at the end."""
    warmup_steps: int = Field(200, ge=0)
    """Steps in which the learning rate rises from near 0."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Adam's memory of the gradient and of its square."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Decoupled (AdamW)."""
    clip_norm: float = Field(2.0, gt=0.0)
    """Longest gradient; longer ones are scaled down to it."""
    ema_decay: float = Field(0.999, ge=0.0, lt=1.0)
    """Memory of the averaged weights, shorter at the start; they are what is validated and kept. 0: no average."""
    max_skipped_in_a_row: int = Field(25, ge=1)
    """Steps with a loss or a gradient that is not finite are skipped and counted; so many on end stop the run."""
    strain: float = Field(0.03, ge=0.0, lt=1.0)
    """Standard deviation of the random strain on training crystals; see `cdvae_kit.transforms.RandomStrain`."""
    displacement: float = Field(0.0, ge=0.0, lt=1.0)
    """Root mean square displacement of the atoms of training crystals along a smooth random field, angstrom; see
    `cdvae_kit.transforms.RandomFieldDisplacement`."""
    substitution: float = Field(0.0, ge=0.0, le=1.0)
    """Share of training crystals that get other elements: any permutation (`cdvae_kit.transforms.ElementSubstitution`),
    or with symmetry elements near in Pettifor's order (`cdvae_kit.transforms.OrderedSubstitution`)."""
    codes: Literal["learned", "kept"] = "learned"
    """`learned`: all is trained, then the prior; `kept`: the score network alone, from other weights (`init`), whose
    codes, prior and all predictors of codes stay valid. A score network that knows how blurred a code is
    (`score_network.knows_blur`) is then trained on blurred codes too."""
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Part of the crystals that is kept for choosing the model, where the data have no split of their own."""
    check_every: int = Field(500, ge=1)
    """Steps between validations, each of which saves the state to resume from, and the model if it is the best yet."""
    patience: int | None = Field(None, ge=1)
    """Validations without a better loss after which training ends; None: never."""
    log_every: int = Field(20, ge=1)
    """Steps whose mean loss makes a row of the log."""
    keep: Literal["best", "last"] = "best"
    """Which averaged weights are kept: those of the lowest validation loss, or the last ones, for losses of which a few
    crystals make up most (a model can be right more and more often while it is ever surer where it is wrong)."""
    prior_steps: int = Field(4000, ge=0)
    """Steps of fitting the learned prior, if the model has one; 0 leaves it as it is."""
    prior_learning_rate: float = Field(1e-3, gt=0.0)
    """Of Adam, falling to 0 along a cosine."""
    prior_weight_decay: float = Field(0.0, ge=0.0)
    """Decoupled (AdamW)."""
    prior_batch_size: int = Field(256, ge=1)
    """Codes in a step of the prior."""
    prior_ema_decay: float = Field(0.999, ge=0.0, lt=1.0)
    """Memory of the averaged weights of the prior."""
    prior_check_every: int = Field(100, ge=1)
    """Steps between looks at the prior's loss on codes of the validation crystals, by which its weights are chosen."""
    critic_steps: int = Field(2000, ge=0)
    """Steps of fitting the critic of the prior's compositions, if the model has one; never more than the prior had. 0
    leaves it as it is."""
    seed: int = 0
    """Of shuffling, noise and augmentation; the weights' own start is the model's."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """`bf16-mixed`: the wide products of the message layers in bfloat16, all else in float32; it pays on CUDA, and on
    CPUs with AVX-512 BF16 (1.3 times as fast)."""
    num_devices: int = Field(1, ge=1)
    """Devices on each machine."""
    num_nodes: int = Field(1, ge=1)
    """Machines."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How devices share the work; `auto` is `ddp` (each holds the whole model) where there are several."""
    loggers: tuple[LoggerName, ...] | None = None
    """Where the losses go beside `metrics.csv`, which is always written; None: TensorBoard where it is installed."""
    compile: bool = False
    """`torch.compile` for the networks: minutes at the start, paid back on large models on CUDA."""

    @model_validator(mode="after")
    def _ends(self) -> TrainingConfig:
        if self.epochs is None and self.max_steps is None and self.max_minutes is None:
            raise ValueError("training needs an end: set epochs, max_steps or max_minutes")
        if not all(0.0 <= beta < 1.0 for beta in self.adam_betas):
            raise ValueError(f"adam_betas must lie in [0, 1), got {self.adam_betas}")
        if self.batch_size < self.world_size:
            raise ValueError(
                f"batch_size counts the crystals of a step over all devices: {self.batch_size} crystals cannot be "
                f"shared by {self.world_size} devices"
            )
        return self

    @property
    def world_size(self) -> int:
        """Processes that share the work."""
        return self.num_devices * self.num_nodes


def describe_presets() -> list[dict[str, Any]]:
    """What each preset of the package is for, and its chief settings; "the default" where it leaves them.

    >>> [row["name"] for row in describe_presets()] == preset_names()
    True
    """
    rows = []
    for name in preset_names():
        text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
        comments = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
        settings = load_preset(name)
        model = {"symmetry": "the default", "latent_dim": "the default"} | settings["model"]
        ends = [f"{settings['training'][key]} {unit}" for key, unit in _ENDS.items() if settings["training"].get(key)]
        row = {"name": name, "summary": next(comments, ""), "ends": " or ".join(ends)}
        row |= {key: model[key] for key in ("max_atoms", "latent_dim")}
        rows.append(row | {"symmetry": model["symmetry"] or "none"})
    return rows


_ENDS = {"epochs": "epochs", "max_steps": "steps", "max_minutes": "minutes"}


def load_preset(name: str) -> dict[str, Any]:
    """The tables `model` and `training` of a preset, or of a TOML file of one's own (a name that ends in `.toml`).

    TOML has no null: the word `"none"` stands for None.

    >>> sorted(load_preset("perov_5"))
    ['model', 'training']
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no preset file {name}; the package's own are {', '.join(preset_names())}"
            )
    elif name in preset_names():
        path = PRESETS / f"{name}.toml"
    else:
        raise SettingsError(f"there is no preset {name!r}{_nearest(name, preset_names())}")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    unknown = sorted(set(settings) - {"model", "training"})
    if unknown:
        raise SettingsError(f"{path} has the tables {unknown}; a preset has [model] and [training]")
    if odd := [table for table, value in settings.items() if not isinstance(value, dict)]:
        raise SettingsError(f"{path}: {odd[0]} should be a table, as in [{odd[0]}]")
    return {"model": {}, "training": {}} | _with_none(settings)


def apply_overrides(
    settings: Mapping[str, Any],
    words: Sequence[str],
    *,
    model_schema: type[BaseModel] | None = None,
    source: str | None = None,
) -> dict[str, Any]:
    """New settings with `key=value` words laid over them, such as `model.latent_dim=64`; values are written as in TOML.

    Args:
        settings: the tables `model` and `training`, as `load_preset` gives them.
        words: a word without the table's name, such as `batch_size=32`, belongs to `training`. Text needs no quotes,
            `none` is None.
        model_schema: checks the table `model`, `cdvae_kit.models.CDVAEConfig` for instance; None leaves it unchecked.
        source: the file that the settings are from, for messages.

    >>> apply_overrides(load_preset("perov_5"), ["training.batch_size=32"])["training"]["batch_size"]
    32
    """
    schemas: dict[str, type[BaseModel] | None] = {"model": model_schema, "training": TrainingConfig}
    result = {name: _copy(settings.get(name, {})) for name in schemas}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"expected key=value, got {word!r}")
        path = key.strip().split(".")
        if path[0] not in schemas:
            path = ["training", *path]
        table, schema = path[0], schemas[path[0]]
        if len(path) == 1:
            raise SettingsError(f"{key.strip()} is a table; name the setting in it, as in {table}.name=value")
        if schema is not None and ".".join(path[1:]) not in set(_known_keys(schema)):
            given = ".".join(path[1:])
            raise SettingsError(
                f"there is no setting {table}.{given}{_nearest(given, list(_known_keys(schema)), table)}"
            )
        _put(result[table], path[1:], _parse(text.strip()))
    for table, schema in schemas.items():
        if schema is not None:
            try:
                _check(result[table], schema, table)
            except SettingsError as error:
                if source is None:
                    raise
                raise SettingsError(f"{source}: {error}") from error
    return result


def _nearest(name: str, known: Sequence[str], table: str | None = None) -> str:
    """The end of a message: what there is instead."""
    # latent is nearer to latent_dim than to anything of its own length
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [key for key in known if key.split(".")[-1] == name.split(".")[-1]][:1]
    prefix = f"{table}." if table else ""
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    shown = [key for key in known if "." not in key]
    return f"; there are {', '.join(f'{prefix}{key}' for key in shown)}"


def _known_keys(schema: type[BaseModel]) -> Iterator[str]:
    """Dotted names of all settings, tables included."""
    for name, field in schema.model_fields.items():
        yield name
        inner = _inner_schema(field.annotation)
        if inner is not None:
            for key in _known_keys(inner):
                yield f"{name}.{key}"


def _inner_schema(annotation: Any) -> type[BaseModel] | None:
    choices = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    found = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)]
    return found[0] if found else None


def _parse(text: str) -> Any:
    """A value as TOML writes it; anything else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return _none_or(text)
    # a line break in the text could have smuggled in a second key
    return _with_none(value["value"]) if set(value) == {"value"} else text


def _none_or(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() == "none" else value


def _with_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_none(inner) for key, inner in value.items()}
    return _none_or(value)


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def _put(table: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        # a prior that was none becomes a table when one of its settings is given
        if not isinstance(table.get(name), dict):
            table[name] = {}
        table = table[name]
    table[path[-1]] = value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


def _check(values: Mapping[str, Any], schema: type[BaseModel], table: str) -> None:
    try:
        schema.model_validate(values)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            key = ".".join([table, *(str(part) for part in fault["loc"])])
            if fault["type"] == "extra_forbidden":
                given = key.removeprefix(f"{table}.")
                lines.append(f"there is no setting {key}{_nearest(given, list(_known_keys(schema)), table)}")
            elif fault["type"] == "value_error":
                lines.append(f"{key}: {fault['msg'].removeprefix('Value error, ')}")
            else:
                lines.append(f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {_short(fault['input'])}")
        raise SettingsError("; ".join(lines)) from error
