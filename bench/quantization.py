"""What quantisation costs: every way to calibrate on the zoo, and training where it is not enough.

    python bench/quantization.py --data-dir data            # prints the tables
    python bench/quantization.py --data-dir data --write    # docs/results/quantization.md, .json

Accuracies are of the C core's bytes. Trained weights are those that ship, or those that
bench/zoo.py left in build/zoo. Less than ten minutes on one core; `--only` makes half of it again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from fieldloop.compiler import compile_graph  # noqa: E402
from fieldloop.frontends.torch_frontend import from_torch, to_nhwc  # noqa: E402
from fieldloop.ir.graph import Graph  # noqa: E402
from fieldloop.ir.reference import run  # noqa: E402
from fieldloop.paths import build_dir  # noqa: E402
from fieldloop.quantize.options import Method, QuantizeOptions  # noqa: E402
from fieldloop.quantize.ptq import quantize_graph  # noqa: E402
from fieldloop.quantize.report import output_error  # noqa: E402
from fieldloop.runtime import Model  # noqa: E402
from fieldloop.train.distill import deterministic  # noqa: E402
from fieldloop.train.measure import calibration  # noqa: E402
from fieldloop.train.qat import QatSchedule, tune  # noqa: E402
from fieldloop.zoo import data as data_sets  # noqa: E402
from fieldloop.zoo import registry  # noqa: E402

RESULTS = ROOT / "docs" / "results"
NETWORKS = ("kws", "resnet8", "har", "bearing", "strokes", "spells")
TESTED = 1000  # test samples of the first table, fewer where that is more than
TESTED_MACS = 4_000_000_000
CALIBRATED = 256
SEEDS = (0, 1, 2, 3, 4)
MINMAX, PERCENTILE, MSE = Method.MINMAX, Method.PERCENTILE, Method.MSE
METHODS = {
    "min-max": QuantizeOptions(),
    "percentile 99.99": QuantizeOptions(method=PERCENTILE),
    "percentile 99": QuantizeOptions(method=PERCENTILE, percentile=99.0),
    "mse": QuantizeOptions(method=MSE),
    "mse, weights too": QuantizeOptions(method=MSE, weights=MSE),
    "min-max, bias corrected": QuantizeOptions(bias_correction=True),
    "min-max, equalised": QuantizeOptions(equalise=True),
    "mse, both": QuantizeOptions(method=MSE, bias_correction=True, equalise=True),
}

Row = dict[str, Any]


def right(graph: Graph, x: Any, y: Any) -> float:
    """Share of right answers of the C core."""
    model = Model(compile_graph(graph, learn=None).image)
    return float((model.classify(x) == y).mean())


def right_in_float(graph: Graph, x: Any, y: Any) -> float:
    made = [run(graph, {graph.inputs[0]: part}) for part in np.array_split(x, -(-len(x) // 100))]
    logits = np.concatenate([each[graph.outputs[0]] for each in made])
    return float((logits.reshape(len(x), -1).argmax(axis=1) == y).mean())


def weights_of(name: str) -> Path | None:
    kept = build_dir() / "zoo" / f"{name}-0.npz"
    shipped = registry.SHIPPED / f"{name}.npz"
    return next((path for path in (shipped, kept) if path.is_file()), None)


def methods(name: str, folder: Path) -> list[Row]:
    """Every way to calibrate one network of the zoo."""
    path = weights_of(name)
    if path is None:
        say(f"{name}: no trained weights yet, left out")
        return []
    data = data_sets.load(name, folder)
    graph = from_torch(registry.load(name, weights=path), torch.zeros(registry.input_shape(name)))
    samples = to_nhwc(calibration(data)[:CALIBRATED])
    count = min(TESTED, TESTED_MACS // graph.macs())
    x, y = to_nhwc(data.x_test[:count]), data.y_test[:count]
    judged = {graph.inputs[0]: x[:100]}
    exact = right_in_float(graph, x, y)
    rows = []
    for title, options in METHODS.items():
        done = quantize_graph(graph, {graph.inputs[0]: samples}, options=options)
        rows.append(
            {
                "network": name,
                "method": title,
                "samples": len(y),
                "float": exact,
                "int8": right(done.graph, x, y),
                "sqnr_db": -10.0 * float(np.log10(output_error(graph, done.graph, judged))),
                "equalised": done.is_equalised,
            }
        )
        say(f"{name}: {title}: {rows[-1]['int8']:.4f}, {rows[-1]['sqnr_db']:.1f} dB")
    return rows


# ---- training where calibration is not enough


@dataclass(frozen=True, slots=True)
class Case:
    """A way to calibrate; `spike`: what one of the samples is multiplied with."""

    title: str
    options: QuantizeOptions
    spike: float = 1.0


CASES = (
    Case("min-max", QuantizeOptions()),
    Case("min-max, one sample of 256 is 50 times too large", QuantizeOptions(), 50.0),
    Case("percentile 97", QuantizeOptions(method=PERCENTILE, percentile=97.0)),
    Case("percentile 90", QuantizeOptions(method=PERCENTILE, percentile=90.0)),
)
FLOAT_EPOCHS = 6
TUNED = 3000  # training samples that are tuned on
SCHEDULE = QatSchedule(epochs=3, batch=64, rate=2e-3, scale_rate=3e-2)


class Narrow(nn.Module):
    """Activities in a quarter of the zoo's channels: [n, 6, 128] -> [n, 6]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        sizes = ((6, 6, 5, 2), (6, 8, 5, 2), (8, 12, 3, 2), (12, 16, 3, 1))
        for c_in, c_out, kernel, stride in sizes:
            layers += [
                nn.Conv1d(c_in, c_out, kernel, stride, (kernel - stride) // 2, bias=False),
                nn.BatchNorm1d(c_out),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layers(x))
        return logits


def trained(build: Callable[[], nn.Module], x: Any, y: Any, seed: int, epochs: int) -> nn.Module:
    """A float network, AdamW on a one-cycle schedule."""
    with deterministic(seed):
        network = build()
        samples, classes = torch.from_numpy(x), torch.from_numpy(y)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-3)
        steps = -(-len(x) // 64)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * steps)
        for _ in range(epochs):
            for chosen in torch.randperm(len(x)).split(64):
                loss = nn.functional.cross_entropy(network(samples[chosen]), classes[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
    return network.eval()


def training(folder: Path, seeds: tuple[int, ...]) -> list[Row]:
    """Post-training quantisation against training, on the narrow network."""
    data = data_sets.load("har", folder)
    x_test = to_nhwc(data.x_test)
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.x_train))[:TUNED])
    x, y = to_nhwc(data.x_train[chosen]), data.y_train[chosen]
    rows = []
    for seed in seeds:
        network = trained(Narrow, data.x_train, data.y_train, seed, FLOAT_EPOCHS)
        graph = from_torch(network, torch.zeros(registry.input_shape("har")))
        opinions = run(graph, {graph.inputs[0]: x})[graph.outputs[0]].reshape(len(x), -1)
        exact = right_in_float(graph, x_test, data.y_test)
        for case in CASES:
            samples = to_nhwc(calibration(data)[:CALIBRATED]).copy()
            samples[3] *= case.spike
            ptq = quantize_graph(graph, {graph.inputs[0]: samples}, options=case.options)
            done = tune(
                graph,
                x,
                y,
                calibration=samples,
                options=case.options,
                opinions=opinions,
                schedule=SCHEDULE,
                seed=seed,
            )
            row = {
                "seed": seed,
                "method": case.title,
                "samples": len(x_test),
                "float": exact,
                "ptq": right(ptq.graph, x_test, data.y_test),
                "qat": right(done.graph, x_test, data.y_test),
            }
            rows.append(row)
            say(f"seed {seed}, {case.title}: {exact:.4f} {row['ptq']:.4f} {row['qat']:.4f}")
    return rows


# ---- the tables


def page(tables: dict[str, list[Row]]) -> str:
    lines = [
        "# Quantisation",
        "",
        "Written by `python bench/quantization.py --data-dir DIR --write`. Every int8 figure is "
        "the C core's own bytes.",
        "",
        "## Ways to calibrate",
        "",
        f"The zoo's networks (seed 0), {CALIBRATED} training samples to calibrate with. Accuracy "
        "on the first test samples; SQNR of the outputs over 100 of them. Equalisation is kept "
        "only where it brings the outputs closer on the calibration samples.",
        "",
        "| network | method | samples | float | int8 | SQNR, dB | equalisation |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for row in tables["methods"]:
        kept = "kept" if row["equalised"] else ""
        lines.append(
            f"| {row['network']} | {row['method']} | {row['samples']} | {row['float']:.4f} | "
            f"{row['int8']:.4f} | {row['sqnr_db']:.1f} | {kept} |"
        )
    count = len({row["seed"] for row in tables["training"]})
    lines += [
        "",
        "## Training with the device's rounding",
        "",
        "Human activities on a network of a quarter of the zoo's channels, calibrated well and "
        f"badly, input included, then fine-tuned for {SCHEDULE.epochs} epochs on {TUNED} training "
        "samples with its float self as teacher. A percentile cuts every activation. Mean of "
        f"{count} seeds and (sample standard deviation), on the whole test split.",
        "",
        "| ranges | float | post-training | trained | gap closed |",
        "|---|--:|--:|--:|--:|",
    ]
    for case in CASES:
        rows = [row for row in tables["training"] if row["method"] == case.title]
        if not rows:
            continue
        exact, ptq, qat = (spread([row[key] for row in rows]) for key in ("float", "ptq", "qat"))
        gap = statistics.mean(row["float"] - row["ptq"] for row in rows)
        closed = statistics.mean(row["qat"] - row["ptq"] for row in rows)
        share = f"{100.0 * closed / gap:.0f} %" if gap > 0.002 else "(no gap)"
        lines.append(f"| {case.title} | {exact} | {ptq} | {qat} | {share} |")
    return "\n".join([*lines, ""])


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ({deviation:.4f})"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of the training part")
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="NAME,...")
    parser.add_argument("--only", choices=("methods", "training"), help="keep the other's rows")
    parser.add_argument("--write", action="store_true", help="write docs/results/quantization.*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[Row]] = {}
    if args.only != "training":
        for name in filter(None, args.networks.split(",")):
            rows[name] = methods(name, args.data_dir)
    tuned = [] if args.only == "methods" else training(args.data_dir, SEEDS[: args.seeds])
    kept = RESULTS / "quantization.json"
    tables: dict[str, list[Row]] = {"methods": [], "training": []}
    if kept.is_file():
        tables = json.loads(kept.read_text())
    for name in NETWORKS:
        rows[name] = rows.get(name) or [r for r in tables["methods"] if r["network"] == name]
    tables = {
        "methods": [row for name in NETWORKS for row in rows[name]],
        "training": tuned or tables["training"],
    }
    if args.write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(tables, indent=1) + "\n")
        (RESULTS / "quantization.md").write_text(page(tables))
    print(page(tables))


if __name__ == "__main__":
    main()
