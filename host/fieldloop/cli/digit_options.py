"""--seed and --missing, as demo, train and compile have them."""

from __future__ import annotations

import argparse


def add_digit_arguments(parser: argparse.ArgumentParser) -> None:
    """Which split, which weights to start from, and which digits the network never sees."""
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of split and training (default: 0)"
    )
    parser.add_argument(
        "--missing",
        type=_digits,
        default=(8, 9),
        metavar="DIGITS",
        help="digits to hold back for the field (default: 8,9)",
    )


def _seed(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"expected 0 to {2**32 - 1}, got {text!r}")
    return value


def _digits(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected digits as 8,9, got {text!r}") from None
