"""The settings of a learner as options: the common ones by name, all others by --set."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.runtime import LearnerConfig

_OPTIONS: dict[str, tuple[type, str]] = {
    "selector": (str, "tinypropv2, tinyprop, dense, topk, random, loss, mask or budget"),
    "layers": (int, "layers to train, from the output (0: all that can be)"),
    "lr": (float, "learning rate, times the layer's own scale"),
    "replays": (int, "old samples replayed after each new one"),
    "memory": (int, "new samples to remember, in RAM"),
    "s_min": (float, "smallest share of gradients kept"),
    "s_max": (float, "largest share of gradients kept"),
    "zeta": (float, "damping of that share per layer"),
    "d_thr": (float, "train only when the decision metric is above"),
    "seed": (int, "of rounding and replays"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--selector, --layers, ... and --set."""
    group = parser.add_argument_group("settings")
    for name, (kind, text) in _OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="V", help=text)
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of fieldloop.runtime.LearnerConfig, as optimizer=adam, "
        "deltas=int16, holdout=4, batch=8 or mask=1,0.5; as often as you like",
    )


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options name, by name."""
    named = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    return named | dict(_parsed(text) for text in args.set)


def config(args: argparse.Namespace) -> LearnerConfig:
    """The demo's settings, with those that the options name."""
    from fieldloop.train.field import CONFIG

    return replace(CONFIG, **given(args))


def _parsed(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value of the setting's own type."""
    from fieldloop.runtime import LearnerConfig

    name, _, value = text.partition("=")
    defaults = {field.name: field.default for field in fields(LearnerConfig)}
    if name not in defaults:
        raise UsageError(f"--set {text}: expected NAME=VALUE, NAME one of {', '.join(defaults)}")
    default = defaults[name]
    try:
        if isinstance(default, tuple):
            return name, tuple(float(share) for share in value.split(","))
        return name, type(default)(value)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}.get(type(default), "numbers as 1,0.5")
        raise UsageError(f"--set {text}: expected {wanted}") from None
