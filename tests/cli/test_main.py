"""The root command: what it lists, what it imports, how a broken command shows."""

from __future__ import annotations

import errno
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from atmosphere.cli import main
from atmosphere.cli.main import ORDER, _load
from tests.cli.conftest import Invoke

HEAVY = ("libp2p", "onnxruntime", "numpy", "trio", "rich", "httpx2", "quart_trio", "google.protobuf", "nacl")


def test_help_lists_every_command_in_the_order_of_use() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line.strip()]
    assert tuple(listed) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {name}")


def test_help_imports_nothing_heavy() -> None:
    """That is what keeps it far below a second: all command modules are loaded, none of what they work with."""
    code = (
        "import sys\n"
        "from atmosphere.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_a_command_that_cannot_be_imported_says_why_and_spares_the_others() -> None:
    command = _load(EntryPoint("simulate", "no_such_module:simulate", "atmosphere.commands"))
    assert "no_such_module" in command.get_short_help_str(200)
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "no_such_module" in result.output


def test_an_entry_point_that_is_no_command_is_refused_with_its_name() -> None:
    command = _load(EntryPoint("odd", "json:dumps", "atmosphere.commands"))
    assert isinstance(command, click.Command)
    assert "json:dumps" in CliRunner().invoke(command, []).output


@pytest.mark.parametrize("words", [
    ("ask", "\udcff"),  # a byte of the command line that is not UTF-8
    ("route", "x", "--model", "\udcff"),
    ("call", "system/health", "stats", "--args", '{"a": NaN}'),
    ("call", "system/health", "stats", "--args", "[" * 100_000),
    ("plan", "show", "/etc/passwd"),
    ("plan", "show", "ab12", "--unit", "\udcff"),
    ("plan", "cancel", "x" * 70_000),
    ("keys", "revoke", "\udcff"),
    ("knowledge", "add", "/dev/fd/\udcff"),
])
def test_odd_words_are_refused_with_a_reason(running: Invoke, cli: Invoke, words: tuple[str, ...]) -> None:
    for invoke in (running, cli):
        result = invoke(*words)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code in (1, 2)
        assert "Error: " in result.stderr


def test_a_full_disk_is_no_traceback(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: object, **more: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = cli("backend", "add", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "No space left" in result.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["fly"])
    assert result.exit_code == 2
    assert "fly" in result.output
