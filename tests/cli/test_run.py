"""``run`` and ``stop``: a node's life as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from atmosphere.config import load
from tests.e2e.backends import openai_server
from tests.processes import (
    COMMAND,
    NodeFailed,
    Nodes,
    command,
    environment,
    eventually,
    free_port,
    invite,
    nodes,
    wait_for_capability,
)

pytestmark = pytest.mark.e2e

QUIET = ("--no-probe",)


@pytest.fixture
def group() -> Iterator[Nodes]:
    with nodes() as group:
        yield group


def run_once(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a node that should refuse to start."""
    return subprocess.run([COMMAND, "--home", home, "run", "--no-mdns", "--no-probe", *options], capture_output=True,
                          text=True, timeout=20, check=False, env=environment())


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_an_empty_home_becomes_a_mesh_and_the_start_says_all_that_matters(group: Nodes) -> None:
    node = group.run(group.folder / "A", options=QUIET)
    eventually("the last line of the start", 5, lambda: "nodes  " in node.log or None)
    for words in ("New mesh", "listens on  /ip4/127.0.0.1/tcp/", f"http://{node.http}/v1", "atmosphere-p2p invite",
                  "nobody looked", "none other yet"):
        assert words in node.log
    assert "Traceback" not in node.log
    again = run_once(node.home)
    assert again.returncode == 1
    assert f"in use by process {node.process.pid}" in again.stderr


def test_a_home_that_has_lost_its_mesh_is_not_given_another(tmp_path: Path) -> None:
    home = tmp_path / "A"
    command(home, "init")
    chain = (home / "membership.chain").read_bytes()
    (home / "mesh.json").unlink()
    refused = run_once(home)
    assert refused.returncode == 1
    assert "mesh.json" in refused.stderr
    assert "join" in refused.stderr
    assert (home / "membership.chain").read_bytes() == chain


@pytest.mark.parametrize("name", ["config.yaml", "mesh.json"])
def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    home = tmp_path / "A"
    command(home, "init")
    (home / name).unlink()
    (home / name).mkdir()
    refused = run_once(home)
    assert refused.returncode == 1
    assert "Is a directory" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_sigterm_ends_gracefully_and_the_others_hear_it(group: Nodes) -> None:
    a = group.start("A", options=QUIET)
    b = group.start("B", invite=invite(a), options=QUIET)

    def state() -> str | None:
        return next((node["state"] for node in a.get("/v1/mesh/nodes")["nodes"] if node["name"] == "B"), None)

    eventually("A sees B", 10, lambda: state() == "online" or None)
    assert b.stop() == 0
    eventually("A heard the goodbye", 2, lambda: state() == "left" or None)
    assert "Traceback" not in b.log


def test_running_work_finishes_when_the_node_is_told_to_stop(group: Nodes) -> None:
    """Half a second of answer is still to come when SIGTERM arrives: the client gets all of it."""
    with openai_server("tiny", tokens=20, token_delay_ms=50) as backend:
        home = group.folder / "A"
        command(home, "backend", "add", backend.url)
        node = group.run(home, options=QUIET)
        wait_for_capability(node, "llm/chat", {node.get("/v1/health")["atmosphere"]["name"]})
        body = {"model": "tiny", "messages": [{"role": "user", "content": "count"}], "stream": True}
        with httpx2.stream("POST", f"{node.base_url}/chat/completions", json=body, timeout=20) as response:
            lines = []
            for line in response.iter_lines():
                lines.append(line)
                if sum(line.startswith("data:") for line in lines) == 5 and node.process.returncode is None:
                    node.process.terminate()
        data = [line for line in lines if line.startswith("data:")]
        assert data[-1] == "data: [DONE]"
        assert not any("error" in line for line in data)
        assert len(data) >= 20
        assert node.stop() == 0


def test_stop_ends_the_node_and_frees_the_home(group: Nodes) -> None:
    node = group.start("A", options=QUIET)
    assert "stopped" in node.command("stop")
    assert node.process.wait(timeout=5) == 0
    assert not (node.home / "control.sock").exists()
    assert "not running" in node.command("stop")


def test_a_second_ctrl_c_ends_at_once(group: Nodes) -> None:
    """With a client that keeps the node from ending by itself before its grace period."""
    home = group.folder / "A"
    command(home, "init")
    (home / "config.yaml").write_text(yaml.safe_dump({"version": 1, "grace_s": 30.0}))
    node = group.run(home, options=QUIET)
    host, port = node.http.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        node.process.send_signal(signal.SIGINT)
        eventually("the first Ctrl-C is heard", 5, lambda: "Ctrl-C again" in node.log or None)
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(timeout=2) == 130


def test_a_busy_libp2p_port_names_the_option(tmp_path: Path, busy_port: int) -> None:
    done = run_once(tmp_path / "home", "--listen", f"/ip4/127.0.0.1/tcp/{busy_port}", "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert "--listen" in done.stderr
    assert str(busy_port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_http_port_names_the_option(tmp_path: Path, busy_port: int) -> None:
    done = run_once(tmp_path / "home", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", f"127.0.0.1:{busy_port}")
    assert done.returncode == 1
    assert "--http" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_port_is_chosen_once(group: Nodes) -> None:
    home = group.folder / "A"
    http = ("--http", f"127.0.0.1:{free_port()}")
    ports = []
    for _ in range(2):
        process = subprocess.Popen([COMMAND, "--home", home, "run", "--no-mdns", *QUIET, *http],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
        with process:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "listens on" in line)
            os.kill(process.pid, signal.SIGTERM)
            process.stdout.read()
        ports.append(line.split("/tcp/")[1].split("/")[0])
    assert ports == [str(load(home).port)] * 2


def test_join_tells_an_unreachable_inviter_from_a_refusal(group: Nodes) -> None:
    a = group.start("A", options=QUIET)
    text = invite(a)
    command(group.folder / "B", "join", text)
    with pytest.raises(NodeFailed, match="used up"):
        command(group.folder / "C", "join", text)
    late = invite(a)
    a.stop()
    with pytest.raises(NodeFailed, match=r"(?s)cannot reach the inviter.*firewall"):
        command(group.folder / "D", "join", late)


def test_a_home_whose_path_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    done = run_once(tmp_path / ("x" * 120))
    assert done.returncode == 1
    assert "--home" in done.stderr


def test_a_backend_whose_key_is_missing_stops_the_start_with_its_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command(home, "backend", "add", "http://127.0.0.1:9/v1", "--key-env", "NO_SUCH_KEY")
    done = run_once(home, "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert "NO_SUCH_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_backend_that_is_added_while_the_node_runs_is_kept(group: Nodes) -> None:
    node = group.start("A", options=QUIET)
    node.command("backend", "add", "http://127.0.0.1:9/v1")
    assert "http://127.0.0.1:9/v1" in node.command("backend", "list")
    assert load(node.home).backends[0].url == "http://127.0.0.1:9/v1"
    node.command("backend", "remove", "http://127.0.0.1:9/v1")
    assert "No backend" in node.command("backend", "list")


def test_call_and_ask_reach_what_is_built_in(group: Nodes, tmp_path: Path) -> None:
    node = group.start("A", options=QUIET)
    (tmp_path / "note.md").write_text("# Shed\n\nThe key of the shed hangs behind the kitchen clock.\n")
    node.command("knowledge", "add", str(tmp_path / "note.md"))
    assert "kitchen clock" in node.command("ask", "where is the key of the shed?", "--type", "knowledge/answer")
    assert "knowledge/answer" in node.command("route", "where is the key of the shed?")
    assert json.loads(node.command("call", "system/health", "check", "--node", "A"))


def test_leave_through_the_running_node_forgets_the_keys_and_tells_the_others(group: Nodes) -> None:
    a = group.start("A", options=QUIET)
    b = group.start("B", invite=invite(a), options=QUIET)
    eventually("A sees B", 10, lambda: any(n["name"] == "B" for n in a.get("/v1/mesh/nodes")["nodes"]) or None)
    assert "keys are gone" in b.command("leave", "--yes")
    assert b.process.wait(timeout=10) == 0
    assert not (b.home / "node.key").exists()
    assert load(b.home).bootstrap == ()
    assert next(n["state"] for n in a.get("/v1/mesh/nodes")["nodes"] if n["name"] == "B") == "left"
