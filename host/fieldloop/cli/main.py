"""The command line: one verb, one file; here they are found, run, and their errors told.

Exit codes: 0 ok, 1 failed, 2 usage, 3 no device, 4 version mismatch, 5 does not fit, 130 Ctrl-C.
A verb's module has HELP, EXAMPLE, add_arguments(parser) and run(args, console) -> Output.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, ModuleType

from fieldloop import __version__
from fieldloop.cli.console import Console, Output
from fieldloop.errors import FieldloopError, UsageError

INTERRUPTED = 130

# Verb -> what it does. Its module is imported only when it is asked for.
VERBS = {
    "demo": "all of it: train, flash a simulated board, learn there, cut the power, report",
    "devices": "list simulated boards and serial ports",
    "info": "tell about a model file, or about a device and its model",
    "train": "train a reference network and write its model",
    "compile": "turn a PyTorch, TFLite or ONNX network into a model, and tell what it will cost",
    "plan": "show what lies where in RAM, and what less RAM costs",
    "export": "write a .tflite with a memory plan for TensorFlow Lite Micro",
    "check": "compare a model with its source's runtime, between kernels and with a board",
    "push": "send a model to a device and activate it",
    "run": "predict samples, on a device or on this machine",
    "learn": "teach a model labelled samples, on a device or on this machine",
    "bench": "count executed instructions of a model or of single kernels on a simulated board",
    "pull": "fetch what a device has learned, or its model",
    "smp": "talk to any SMP server: echo, files, tasks, images",
    "doctor": "check this machine, and say what to do next",
}


class _Parser(argparse.ArgumentParser):
    """Usage errors as the project's own: one line, exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see {self.prog} --help")


def entry() -> None:
    """The program `fieldloop`."""
    # What was begun is ended in order: a simulated board off, temporary files gone.
    for number in (signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ())):
        signal.signal(number, _terminated)
    code = main()
    try:
        sys.stdout.flush()
    except OSError:  # told already, by main()
        _discard_output()
    sys.exit(code)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = bool(os.environ.get("FIELDLOOP_DEBUG"))
    as_json = "--json" in words
    console = Console(quiet="--quiet" in words or "-q" in words)
    if not debug:
        warnings.simplefilter("ignore")  # of libraries, about their own future
    try:
        output = _run(words, console)
        _print(output.data if as_json else output.text)
        return output.code
    except SystemExit as error:  # argparse has printed help or the version
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        return _told(console, as_json, "interrupted; what was committed on a device is safe", 130)
    except BrokenPipeError:
        _discard_output()  # whoever read it has seen enough
        return 1
    except FieldloopError as error:
        if debug:
            traceback.print_exc()
        return _told(console, as_json, str(error), error.exit_code)
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename else ""
        return _told(console, as_json, f"{where}{error.strerror or error}", 1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = f"unexpected {type(error).__name__}: {error}"
        return _told(
            console, as_json, f"{_one_line(text)}; FIELDLOOP_DEBUG=1 shows where, please report", 1
        )


def _run(words: list[str], console: Console) -> Output:
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb in VERBS and words[0] == verb:
        module = importlib.import_module(f"fieldloop.cli.{verb}")
        args = _verb_parser(verb, module).parse_args(words[1:])
        output: Output = module.run(args, console)
        return output
    _main_parser().parse_args(words)
    raise AssertionError("the main parser ends by help, version or error")


def _main_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, text in VERBS.items())
    parser = _Parser(
        prog="fieldloop",
        description="Train on the host, learn in the field.",
        epilog=f"verbs:\n{verbs}\n\n`fieldloop VERB --help` has an example of each.\n"
        "exit codes: 0 ok, 1 failed, 2 usage, 3 no device, 4 version, 5 does not fit, 130 Ctrl-C",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fieldloop {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do, see below")
    return parser


def _verb_parser(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"fieldloop {verb}",
        description=module.HELP,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def _told(console: Console, as_json: bool, text: str, code: int) -> int:
    console.error(_one_line(text))
    if as_json:
        with suppress(OSError):  # it may be what failed
            _print({"ok": False, "error": _one_line(text), "exit_code": code})
    return code


def _discard_output() -> None:
    """Nothing more can be written to stdout, what Python has buffered for it included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(result: dict[str, object] | str) -> None:
    text = result if isinstance(result, str) else json.dumps(result, indent=2)
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _one_line(text: str) -> str:
    return " ".join(text.split())
