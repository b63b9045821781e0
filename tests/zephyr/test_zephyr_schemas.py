"""The files that west, Zephyr and twister read, held against schemas of our own.

The schemas know what we use of those formats and nothing else, so that a misspelt key is found
on a machine without Zephyr, where nobody would miss it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "zephyr_app"
PLATFORMS = [
    "native_sim",
    "native_sim/native/64",
    "qemu_cortex_m3",
    "mps2/an385",
    "mps2/an386",
    "mps2/an500",
    "mps3/corstone300/an547",
]
# What every suite is at least to be run on.
REQUIRED = {"native_sim/native/64", "qemu_cortex_m3", "mps2/an386", "mps3/corstone300/an547"}

WORD = {"type": "string", "minLength": 1}
WORDS = {"oneOf": [WORD, {"type": "array", "items": WORD, "minItems": 1}]}
PLATFORM_LIST = {
    "type": "array",
    "items": {"enum": PLATFORMS},
    "minItems": 1,
    "uniqueItems": True,
}


def closed(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }


MODULE = closed(
    {
        "name": {"const": "fieldloop"},
        "build": closed(
            {
                "cmake": WORD,
                "kconfig": WORD,
                "depends": {"type": "array", "items": WORD},
                "settings": closed(
                    {key: WORD for key in ("board_root", "dts_root", "snippet_root", "soc_root")}
                ),
            },
            ["cmake", "kconfig"],
        ),
        "tests": {"type": "array", "items": WORD},
        "samples": {"type": "array", "items": WORD},
    },
    ["name", "build"],
)
CASE = {
    "tags": WORDS,
    "timeout": {"type": "integer", "minimum": 1, "maximum": 1200},
    "platform_allow": PLATFORM_LIST,
    "integration_platforms": PLATFORM_LIST,
    "harness": {"enum": ["ztest", "console", "shell", "pytest"]},
    "harness_config": {"type": "object"},
    "build_only": {"type": "boolean"},
    "extra_args": WORDS,
    "extra_configs": {"type": "array", "items": {"type": "string", "pattern": "CONFIG_\\w+=.+"}},
    "extra_conf_files": {"type": "array", "items": WORD},
    "extra_overlay_confs": {"type": "array", "items": WORD},
    "extra_dtc_overlay_files": {"type": "array", "items": WORD},
    "min_ram": {"type": "integer"},
    "min_flash": {"type": "integer"},
    "depends_on": WORDS,
    "filter": WORD,
    "modules": {"type": "array", "items": WORD},
}
CASES = {
    "type": "object",
    "patternProperties": {"^fieldloop\\.[a-z0-9_.]+$": closed(CASE)},
    "additionalProperties": False,
    "minProperties": 1,
}
TESTCASE = closed({"common": closed(CASE), "tests": CASES}, ["tests"])
SAMPLE = closed(
    {
        "sample": closed({"name": WORD, "description": WORD}, ["name", "description"]),
        "common": closed(CASE),
        "tests": CASES,
    },
    ["sample", "tests"],
)
COMMANDS = closed(
    {
        "west-commands": {
            "type": "array",
            "minItems": 1,
            "items": closed(
                {
                    "file": WORD,
                    "commands": {
                        "type": "array",
                        "items": closed({"name": WORD, "class": WORD, "help": WORD}, ["name"]),
                    },
                },
                ["file", "commands"],
            ),
        }
    },
    ["west-commands"],
)
SCHEMAS = {
    "module.yml": MODULE,
    "testcase.yaml": TESTCASE,
    "sample.yaml": SAMPLE,
    "west-commands.yml": COMMANDS,
}


def described() -> list[Path]:
    """Every file of these kinds, wherever we have one."""
    found = [ROOT / "scripts" / "west-commands.yml", ROOT / "zephyr" / "module.yml"]
    for name in ("testcase.yaml", "sample.yaml"):
        found += sorted(APP.rglob(name))
    return found


def suites() -> list[Path]:
    return [path for path in described() if path.name in {"testcase.yaml", "sample.yaml"}]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> dict[str, Any]:
    data = yaml.safe_load(path.read_text())
    assert isinstance(data, dict), path
    return data


@pytest.mark.parametrize("path", described(), ids=name_of)
def test_a_file_is_what_its_reader_takes(path: Path) -> None:
    jsonschema.validate(read(path), SCHEMAS[path.name])


@pytest.mark.parametrize("name", sorted({path.name for path in described()}))
def test_the_schemas_find_a_misspelt_key(name: str) -> None:
    path = next(path for path in described() if path.name == name)
    data = read(path)

    def maps(node: Any) -> list[dict[str, Any]]:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        own = [node] if isinstance(node, dict) else []
        return own + [found for item in inner for found in maps(item)]

    for node in maps(data):
        node["platfrom"] = ["native_sim"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, SCHEMAS[name])
        del node["platfrom"]
    jsonschema.validate(data, SCHEMAS[name])


def test_the_module_lies_where_it_says() -> None:
    build = read(ROOT / "zephyr" / "module.yml")["build"]
    assert (ROOT / build["cmake"] / "CMakeLists.txt").is_file()
    assert (ROOT / build["kconfig"]).is_file()
    for key, place in build.get("settings", {}).items():
        inner = {"dts_root": "dts", "board_root": "boards", "snippet_root": "snippets"}[key]
        assert (ROOT / place / inner).is_dir(), f"{key}: {place} has no {inner}/"
    for key in ("tests", "samples"):
        for place in read(ROOT / "zephyr" / "module.yml").get(key, []):
            assert (ROOT / place).is_dir(), place


def test_the_commands_are_there() -> None:
    for entry in read(ROOT / "scripts" / "west-commands.yml")["west-commands"]:
        text = (ROOT / entry["file"]).read_text()
        for command in entry["commands"]:
            assert re.search(rf"^class {command['class']}\(WestCommand\)", text, re.M)


def test_suites_have_names_of_their_own() -> None:
    names = [name for path in suites() for name in read(path)["tests"]]
    assert len(names) == len(set(names))
    assert {"fieldloop.core", "fieldloop.store", "fieldloop.link", "fieldloop.server"} <= {
        ".".join(name.split(".")[:2]) for name in names
    }


@pytest.mark.parametrize("path", suites(), ids=name_of)
def test_a_suite_has_its_files(path: Path) -> None:
    folder = path.parent
    for name in ("CMakeLists.txt", "prj.conf"):
        assert (folder / name).is_file(), f"{name_of(folder)} lacks {name}"
    assert list((folder / "src").glob("*.c"))
    data = read(path)
    for case in [data.get("common", {}), *data["tests"].values()]:
        for key in ("extra_conf_files", "extra_overlay_confs", "extra_dtc_overlay_files"):
            for name in case.get(key, []):
                assert (folder / name).is_file(), f"{key} names {name}"
        given = case.get("extra_args", [])
        words = given.split() if isinstance(given, str) else given
        for word in words:
            found = re.match(r"(?:EXTRA_)?(?:CONF_FILE|DTC_OVERLAY_FILE)=(.*)", word)
            for name in re.split(r"[; ]", found[1].strip('"')) if found else []:
                assert (folder / name).is_file(), f"extra_args names {name}"


@pytest.mark.parametrize("path", [p for p in suites() if p.name == "testcase.yaml"], ids=name_of)
def test_a_suite_runs_on_the_boards_that_we_promise(path: Path) -> None:
    data = read(path)
    for name, case in data["tests"].items():
        both = {**data.get("common", {}), **case}
        assert set(both["platform_allow"]) >= REQUIRED, name
        assert set(both["integration_platforms"]) >= REQUIRED, name
        assert "fieldloop" in both["tags"]


@pytest.mark.parametrize("path", sorted(APP.rglob("prj.conf")), ids=name_of)
def test_a_configuration_sets_nothing_twice(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"CONFIG_\w+=(y|n|-?\d+|0x[0-9a-fA-F]+|\"[^\"]*\")", line), line
    names = [line.split("=")[0] for line in lines]
    assert len(names) == len(set(names))
