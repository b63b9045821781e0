"""The report: report.html, one file with its pictures inside, and report.json."""

from __future__ import annotations

import html
import json
import tempfile
from pathlib import Path

from fieldloop.demo import plots
from fieldloop.demo.flow import Demo
from fieldloop.demo.result import Check, DemoResult, as_json, checks
from fieldloop.errors import FieldloopError

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --card: #ffffff; }
body { margin: 0; background: #f5f7fa; color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 32px 16px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 0 0 12px; }
.soft { color: var(--soft); } .lead { font-size: 18px; margin: 0 0 20px; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 24px; margin: 20px 0; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; }
@media (max-width: 760px) { .tiles { grid-template-columns: 1fr; } }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.tile b { display: block; font-size: 22px; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
td, th { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ok { color: #2e8b57; } .bad { color: #c0392b; font-weight: bold; }
pre { font-size: 12px; line-height: 1.25; overflow-x: auto; margin: 0; }
svg { max-width: 100%; height: auto; } .pair { display: flex; flex-wrap: wrap; gap: 12px; }
"""


def prepare(folder: Path) -> None:
    """Makes the folder; what cannot be written is told before the work is done, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


def write_report(demo: Demo, folder: Path) -> tuple[Path, Path]:
    """Writes report.html and report.json into a folder; returns both paths."""
    page, data = folder / "report.html", folder / "report.json"
    prepare(folder)
    try:
        content = as_json(demo.result, demo.seeds)
        data.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        page.write_text(_page(demo), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return page, data


def _cannot_write(folder: Path, error: OSError) -> FieldloopError:
    return FieldloopError(
        f"cannot write the report to {folder}: {error.strerror}; choose another --output"
    )


def _page(demo: Demo) -> str:
    r = demo.result
    found = checks(r, demo.seeds)
    missing = " and ".join(map(str, r.missing))
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>fieldloop demo, {r.board}</title><style>{_STYLE}</style></head><body><main>",
        "<h1>Trained on the host, learned in the field</h1>",
        f"<p class='lead'>A network that had never seen the digits {missing} learned them on "
        f"{html.escape(r.board_title)}, lost its power, and still knew them.</p>",
        _tiles(r),
        _section("Accuracy on the test split", plots.accuracies(r, demo.fields) + _legend()),
        _section(
            "What the board said before and after",
            f"<p class='soft'>Test samples of the digits {missing}; green is right.</p>"
            + plots.gallery(demo.trained.data, demo.before, demo.after),
        ),
        "<section><div class='pair'>"
        f"{plots.stream_curve(demo.fields)}{plots.effort(demo.fields)}</div></section>",
        _section("Memory and instructions", _memory(r)),
        _section(
            "The plan of the arena",
            f"<pre>{html.escape(demo.trained.compiled.report.memory_map)}</pre>",
        ),
    ]
    if demo.seeds:
        parts.append(_section(f"{len(demo.seeds)} seeds", plots.over_seeds(demo.seeds)))
    parts += [_section("Checks", _checks(found)), _section("This run", _run(r))]
    return "\n".join([*parts, "</main></body></html>\n"])


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"


def _tiles(r: DemoResult) -> str:
    lost = r.old_class_accuracy_before - r.old_class_accuracy_after
    tiles = (
        (f"{r.new_class_accuracy_after:.1%}", "of new digits right, after learning"),
        (f"{100 * lost:.1f} points", "of accuracy lost on old digits"),
        (f"{r.backward_mac_share:.1%}", "of dense training's backward effort"),
        (f"{r.ram_learn_planned_bytes:,} B", "of RAM to learn, as planned"),
        (
            "yes" if r.state_survived_power_cut and r.state_equals_host else "no",
            "survived the power cut, byte for byte",
        ),
    )
    cells = "".join(f"<div class='tile'><b>{b}</b><span>{s}</span></div>" for b, s in tiles)
    return f"<div class='tiles'>{cells}</div>"


def _legend() -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(title)}</td></tr>"
        for name, title in plots.titles().items()
    )
    return f"<table>{rows}</table>"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{html.escape(a)}</td><td class='n'>{b}</td></tr>" for a, b in rows)
    return f"<table>{cells}</table>"


def _memory(r: DemoResult) -> str:
    rows = [
        ("model image, executed in place (flash)", f"{r.model_bytes:,} B"),
        ("firmware (ROM)", f"{r.firmware_rom_bytes:,} B"),
        (
            "RAM to infer: planned / touched",
            f"{r.ram_planned_bytes:,} / {r.ram_watermark_bytes:,} B",
        ),
        (
            "RAM to learn: planned / touched",
            f"{r.ram_learn_planned_bytes:,} / {r.ram_learn_watermark_bytes:,} B",
        ),
        ("one commit to the store", f"{r.state_bytes:,} B"),
        ("multiply-accumulates of one inference", f"{r.model_macs:,}"),
    ]
    for title, count in (
        ("instructions of one inference", r.instructions_predict),
        ("instructions of one learning step with its replays", r.instructions_step),
    ):
        if count is not None:
            same = (
                "the same in two boots" if r.instructions_repeat else "NOT the same in two boots"
            )
            rows.append((title, f"{count:,} ({same})"))
    return _table(rows)


def _checks(found: tuple[Check, ...]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(check.name)}</td><td class='n'>{html.escape(check.expected)}</td>"
        f"<td class='n {'ok' if check.ok else 'bad'}'>{html.escape(check.got)}"
        f"{'' if check.ok else ' FAILED'}</td></tr>"
        for check in found
    )
    return f"<table><tr><th>what</th><th>expected</th><th>measured</th></tr>{rows}</table>"


def _run(r: DemoResult) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in r.versions.items())
    memory = f", memory map {r.memory_map}" if r.memory_map else ""
    seconds = " · ".join(f"{name} {value:.1f} s" for name, value in r.stage_seconds.items())
    return (
        f"<p>Board {html.escape(r.board)}{memory}; seed {r.seed}; "
        f"{r.device_samples_checked} test samples checked bit by bit.</p>"
        f"<p class='soft'>{html.escape(versions)}</p><p class='soft'>{html.escape(seconds)}; "
        f"{r.seconds:.1f} s in all</p>"
    )
