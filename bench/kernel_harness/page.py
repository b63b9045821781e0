"""The counts as a page and as JSON, beside the figures of other libraries in anchors.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernel_harness.board import CodeSize, RunCount
from kernel_harness.networks import Network

Say = Callable[[str], None]

ANCHORS = json.loads(Path(__file__).resolve().parent.with_name("anchors.json").read_text())


@dataclass(slots=True)
class Results:
    """`runs` by core and network; `code` by core and level of optimisation."""

    networks: list[Network]
    runs: dict[tuple[str, str], RunCount]
    code: dict[str, dict[str, CodeSize]]

    @property
    def cores(self) -> list[str]:
        return list(self.code)

    def as_json(self) -> dict[str, Any]:
        """Stable keys: networks -> cores -> figures; other libraries' under `anchors`."""
        models: dict[str, Any] = {}
        for net in self.networks:
            models[net.name] = {
                "macs": sum(net.macs),
                "image_bytes": len(net.image),
                "cores": {core: self._figures(core, net) for core in self.cores},
            }
        code = {
            core: {level: asdict(size) for level, size in levels.items()}
            for core, levels in self.code.items()
        }
        return {"models": models, "kernel_code_bytes": code, "anchors": ANCHORS}

    def _figures(self, core: str, net: Network) -> dict[str, Any]:
        run = self.runs[core, net.name]
        rows = zip(net.layers, net.macs, run.ops, strict=True)
        return {
            "instructions": run.instructions,
            "arena_bytes": run.arena,
            "scratch_bytes": max(op.scratch for op in run.ops),
            "stack_bytes": run.stack,
            "layers": [
                {"layer": layer, "macs": n, "instructions": op.instructions, "scratch": op.scratch}
                for layer, n, op in rows
            ],
        }


def page(results: Results) -> str:
    """All of it in Markdown."""
    lines = [
        "# Kernels",
        "",
        "Written by `python bench/kernels.py --write`: executed instructions in QEMU (`-icount`, "
        "exact to one instruction), one inference from entry to return of `fl_model_run`, all "
        "layers included, on one input of random int8. Compiled as the firmware is (kernels -O2, "
        "the rest -Os); every layer's output equals plain C on the host. Instructions are no "
        "cycles: compare kernels on one core, never cores. Scratch is part of the arena; stack is "
        "what `fl_model_run` takes of it at most; all in bytes.",
        "",
        f"The other columns are copied from `bench/anchors.json`: {ANCHORS['source']}",
        "",
        "## Whole models",
        "",
        "| model | core | instructions | a MAC | CMSIS-NN -O3 | ours to it | CMSIS-NN best "
        "| ours to it | scratch | CMSIS-NN's | arena | stack |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for net in results.networks:
        for core in results.cores:
            run = results.runs[core, net.name]
            other = ANCHORS["models"][net.name]["cores"][core]
            o3, best = other["cmsis_nn_o3"], other["cmsis_nn_best"]
            lines.append(
                f"| {net.name} | {core} | {run.instructions:,} "
                f"| {run.instructions / sum(net.macs):.2f} | {o3:,} "
                f"| {_change(run.instructions, o3)} | {best:,} "
                f"| {_change(run.instructions, best)} | {max(op.scratch for op in run.ops)} "
                f"| {other['scratch']} | {run.arena} | {run.stack} |"
            )
    lines += ["", "## Layers"]
    for net in results.networks:
        lines += _layers(results, net)
    lines += ["", "## Code", "", *_code(results)]
    return "\n".join(lines) + "\n"


def _change(ours: int, theirs: int) -> str:
    return f"{100 * (ours / theirs - 1):+.1f} %"


def _layers(results: Results, net: Network) -> list[str]:
    """One row a kind of layer; a count is one layer's, the mean where several are alike."""
    anchors = ANCHORS["models"][net.name]["layers"]
    alike: dict[str, list[int]] = {}
    for i, layer in enumerate(net.layers):
        alike.setdefault(layer, []).append(i)
    head = " | ".join(f"{core} | CMSIS-NN | to it | a MAC" for core in results.cores)
    lines = ["", f"### {net.name}", "", f"| layer | MACs | {head} | TFLM M4 |"]
    lines.append("|---|--:|" + "--:|" * (4 * len(results.cores) + 1))
    for layer, places in alike.items():
        cells = []
        anchor = anchors.get(layer, {})
        for core in results.cores:
            ops = results.runs[core, net.name].ops
            mean = round(sum(ops[i].instructions for i in places) / len(places))
            theirs = anchor.get(core)
            per_mac = f"{mean / net.macs[places[0]]:.2f}" if net.macs[places[0]] else ""
            cells.append(
                f"{mean:,} | {theirs:,} | {_change(mean, theirs)} | {per_mac}"
                if theirs
                else f"{mean:,} | | | {per_mac}"
            )
        name = layer if len(places) == 1 else f"{layer} x{len(places)}"
        tflm = f"{anchor['tflm_M4']:,}" if anchor else ""
        lines.append(f"| {name} | {net.macs[places[0]] or ''} | {' | '.join(cells)} | {tflm} |")
    return lines


def _code(results: Results) -> list[str]:
    lines = [
        "Bytes of code and constants. Linked: convolution, depthwise convolution, fully "
        "connected, both pools, addition and softmax with all they call, plain C included that a "
        "variant passes on to. CMSIS-NN: what its union of seven models links. Objects: all int8 "
        "kernels, before linking.",
        "",
        "| core | linked -Os | CMSIS-NN | linked -O2 | CMSIS-NN | objects -Os | objects -O2 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for core in results.cores:
        small, fast = results.code[core]["-Os"], results.code[core]["-O2"]
        theirs = ANCHORS["code"][core]
        lines.append(
            f"| {core} | {small.linked} | {theirs['-Os']} | {fast.linked} | {theirs['-O2']} "
            f"| {small.objects} | {fast.objects} |"
        )
    return lines
