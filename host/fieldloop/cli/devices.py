"""fieldloop devices."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from fieldloop.cli.console import Console, Output, table
from fieldloop.cli.device import serial_ports
from fieldloop.targets import roster
from fieldloop.targets.missing import missing_for

HELP = "Lists the boards that this machine can simulate, and the serial ports it has."
EXAMPLE = "fieldloop devices --json"


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    kind: str
    title: str
    missing_tools: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace, console: Console) -> Output:
    targets = [_target(spec) for spec in roster.load().values() if spec.kind != "serial"]
    ports = serial_ports()
    rows = [(t.name, t.title, _state(t)) for t in targets]
    rows += [(f"serial:{name}", description, "") for name, description in ports]
    text = table(rows)
    if not ports:
        text += "\n(no serial port has a device)"
    return Output(
        {
            "targets": [asdict(target) for target in targets],
            "ports": [{"name": name, "description": text} for name, text in ports],
        },
        text,
    )


def _target(spec: roster.TargetSpec) -> _Target:
    return _Target(spec.name, spec.kind, spec.title, missing_for(spec.name))


def _state(target: _Target) -> str:
    return f"needs {', '.join(target.missing_tools)}" if target.missing_tools else "ready"
