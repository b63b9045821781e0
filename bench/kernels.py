"""Executed instructions of the four MLPerf Tiny networks, layer by layer, beside CMSIS-NN's.

    python bench/kernels.py --board an386 --model kws
    python bench/kernels.py --write

A bare-metal program runs the image in QEMU (-icount, exact), compiled as the firmware is; every
layer's output is compared by CRC-32 with plain C on the host. Instructions are no cycles.
`--write` puts all boards into docs/results/kernels.md and kernels.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "host"), str(ROOT / "bench")]

from kernel_harness import board, networks, page  # noqa: E402

from fieldloop.errors import FieldloopError  # noqa: E402

RESULTS = ROOT / "docs" / "results"


def measure(names: list[str], boards: list[str], say: page.Say) -> page.Results:
    """Counts of every network on every board; FieldloopError where an output is not the host's."""
    nets = [networks.network(name) for name in names]
    results = page.Results(nets, {}, {})
    for name in boards:
        machine = board.MACHINES[name]
        results.code[machine.core] = {
            level: board.code_size(machine, level) for level in ("-Os", "-O2")
        }
        for net in nets:
            say(f"{name}: {net.name}")
            counted = board.run(machine, net.image, net.x)
            for layer, op, crc in zip(net.layers, counted.ops, net.crcs, strict=True):
                if op.crc != crc:
                    raise FieldloopError(
                        f"{name}, {net.name}, {layer}: expected an output of CRC-32 {crc:08x} "
                        f"(plain C on the host), got {op.crc:08x}"
                    )
            results.runs[machine.core, net.name] = counted
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--board", choices=board.MACHINES, action="append", help="(default all)")
    parser.add_argument("--model", choices=networks.FILES, action="append", help="(default all)")
    parser.add_argument(
        "--write", action="store_true", help="write docs/results/kernels.{md,json}"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    if args.write and (args.board or args.model):
        parser.error("--write: takes all boards and models")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        results = measure(
            args.model or list(networks.FILES), args.board or list(board.MACHINES), say
        )
    except FieldloopError as error:
        say(f"kernels: {error}")
        return 1
    text = json.dumps(results.as_json(), indent=1) + "\n"
    if args.write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "kernels.md").write_text(page.page(results))
        (RESULTS / "kernels.json").write_text(text)
    print(text if args.json else page.page(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
