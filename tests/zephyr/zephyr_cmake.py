"""The module's CMakeLists.txt, read as text and evaluated by CMake itself without Zephyr."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "cmodules" / "fieldloop"
GLUE = CORE / "zephyr"
LIST = GLUE / "CMakeLists.txt"
ROOMS = ("base", "core", "kernels", "learn", "link", "store", "server")

# What Zephyr would bring, in a script: each call says what it was called with.
_STANDINS = """cmake_minimum_required(VERSION 3.20.0)
function(say what)
  string(REPLACE ";" "|" words "${ARGN}")
  message(STATUS "${what}|${words}")
endfunction()
function(zephyr_library)
endfunction()
function(zephyr_library_named)
endfunction()
function(zephyr_library_sources)
  say(SOURCES ${ARGN})
endfunction()
function(zephyr_library_sources_ifdef feature)
  if(${${feature}})
    say(SOURCES ${ARGN})
  endif()
endfunction()
function(zephyr_include_directories)
  say(INCLUDE ${ARGN})
endfunction()
function(zephyr_library_include_directories)
  say(INCLUDE ${ARGN})
endfunction()
function(zephyr_library_compile_options)
  say(OPTIONS ${ARGN})
endfunction()
function(zephyr_linker_sources)
endfunction()
function(zephyr_iterable_section)
endfunction()
function(set_source_files_properties)
  say(PROPERTIES ${ARGN})
endfunction()
"""


@dataclass(slots=True)
class Built:
    """What CMake would have built."""

    sources: list[Path] = field(default_factory=list)
    includes: list[Path] = field(default_factory=list)
    options: list[str] = field(default_factory=list)  # of all sources
    own_options: dict[Path, list[str]] = field(default_factory=dict)  # of one, the last said


def listed() -> list[Path]:
    """The C files that the list names, in its order, each as often as it is named."""
    text = re.sub(r"#.*", "", LIST.read_text())
    names = re.findall(r"(?<![\w/.])((?:\w+/)?\w+\.c)\b", text)
    return [(CORE if "/" in name else GLUE) / name for name in names]


def evaluate(folder: Path, config: Mapping[str, str]) -> Built:
    """Runs the list with these CONFIG_ values (prefix included) in CMake's script mode."""
    script = folder / "probe.cmake"
    settings = "".join(f'set({name} "{value}")\n' for name, value in config.items())
    script.write_text(f'{_STANDINS}{settings}include("{LIST}")\n')
    done = subprocess.run(["cmake", "-P", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = Built()
    for line in done.stdout.splitlines():
        what, *words = line.removeprefix("-- ").split("|")
        if what == "SOURCES":
            built.sources += [(GLUE / word).resolve() for word in words]
        elif what == "INCLUDE":
            built.includes += [(GLUE / word).resolve() for word in words]
        elif what == "OPTIONS":
            built.options += words
        elif what == "PROPERTIES":
            at = words.index("PROPERTIES")
            assert words[at + 1] == "COMPILE_OPTIONS", words[at:]
            options = [word for word in words[at + 2 :] if word]
            for word in words[:at]:
                built.own_options[(GLUE / word).resolve()] = options
    return built
