"""Three nodes, one API: what the README promises, shown on this machine. ``make demo``.

Node A has nothing but the API. B and C join A by invite and index the project's own documents. The official OpenAI
SDK talks to A only: embeddings, a question about the documents, a dry run with reasons. Then the node that answered
is killed with SIGKILL, and the same question to A is answered by the other one.

Everything is in a temporary folder and on loopback; only processes that were started here are ended.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI, OpenAIError

from tests.processes import Node, NodeFailed, Nodes, invite, nodes, wait_for_capability

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "SPEC.md", "docs")
QUESTION = "How does a new node become a member of the mesh?"
ANSWERS = "knowledge/answer"
FAILOVER_S = 10.0


class DemoError(Exception):
    """The demo did not show what it should; the text is the reason."""


def say(name: str, text: str, began: float | None = None) -> None:
    """One step: the node, the milliseconds since *began*, what happened."""
    elapsed = "" if began is None else f"{(time.perf_counter() - began) * 1000:.0f} ms"
    print(f"{name:>4} {elapsed:>9}  {text}", flush=True)


def start(group: Nodes, name: str, invitation: str | None) -> Node:
    began = time.perf_counter()
    node = group.start(name, invite=invitation)
    how = "new mesh" if invitation is None else "joined by invite"
    say(name, f"{how}; process {node.process.pid} ready after {node.ready_s:.1f} s, API {node.base_url}", began)
    return node


def index(node: Node) -> None:
    """Let *node* index the documents of this checkout."""
    began = time.perf_counter()
    found = [name for name in DOCUMENTS if (ROOT / name).exists()]
    if not found:
        raise DemoError(f"none of {', '.join(DOCUMENTS)} is in {ROOT}")
    for name in found:
        node.command("knowledge", "add", str(ROOT / name))
    say(node.name, f"indexed {', '.join(found)}", began)


def embed(client: OpenAI, names: dict[str, str]) -> int:
    """Embed a text through A; the vector's dimensions."""
    began = time.perf_counter()
    raw = client.embeddings.with_raw_response.create(model="auto", input="Route work to capability.")
    size = len(raw.parse().data[0].embedding)
    say(names[raw.headers["x-atmosphere-node"]], f"embeddings: {size} dimensions; {where(raw.headers)}", began)
    return size


def ask(client: OpenAI, names: dict[str, str], kind: str, question: str) -> str:
    """Ask through A and show who answered; the name of that node."""
    began = time.perf_counter()
    raw = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": question}],
        extra_body={"atmosphere": {"constraints": {"type": kind}}},
    )
    text = raw.parse().choices[0].message.content or ""
    name = names[raw.headers["x-atmosphere-node"]]
    if not text.strip():
        raise DemoError(f"an empty answer from {name}")
    say(name, f"answers {question!r}; {where(raw.headers)}", began)
    say("", f"  {' '.join(text.split())[:160]} ...")
    return name


def where(headers: Any) -> str:
    """The reason in short, from the response headers."""
    card, kind = headers["x-atmosphere-capability"].split()
    return (f"{kind} (card {card[:8]}), path {headers['x-atmosphere-path']}, "
            f"routed in {headers['x-atmosphere-route-ms']} ms")


def dry_run(a: Node, names: dict[str, str]) -> None:
    """Show the ranking of the question, factor by factor, without running it."""
    began = time.perf_counter()
    decision = a.post("/v1/mesh/route", {"intent": QUESTION, "type": ANSWERS})
    if not decision["chosen"]:
        raise DemoError(f"the dry run found nobody: {decision['missing']}")
    say("A", f"dry run: {len(decision['candidates'])} candidates, {names[decision['chosen']['peer_id']]} first", began)
    for candidate in decision["candidates"]:
        reasons = ", ".join(f"{name} {value:.3g}" for name, value in candidate["factors"].items())
        say("", f"  {candidate['name']}: score {candidate['score']:.3f} ({reasons})")
    filtered = ", ".join(f"{count} by {name}" for name, count in decision["filtered"].items() if count)
    say("", f"  filtered: {filtered or 'none'}")


def ask_survivors(client: OpenAI, names: dict[str, str], dead: str) -> tuple[str, float]:
    """Ask until somebody answers: who, and milliseconds after the kill. Counts what fails on the way."""
    began = time.perf_counter()
    failures: list[str] = []
    while time.perf_counter() - began < FAILOVER_S:
        try:
            name = ask(client, names, ANSWERS, QUESTION)
        except OpenAIError as error:
            failures.append(str(error))
            say("A", f"  refused: {error}")
            continue
        if name == dead:
            raise DemoError(f"an answer claims to come from {dead}, which is dead")
        return name, (time.perf_counter() - began) * 1000
    raise DemoError(f"nobody answered after {dead} was killed: {failures[-1]}")


def chat_besides(a: Node, client: OpenAI, names: dict[str, str]) -> str:
    """Use a model server of this machine, if there is one. Its own trouble is told and is not the demo's."""
    if not any(item["type"] == "llm/chat" for item in a.get("/v1/mesh/capabilities")["capabilities"]):
        return "no model server on this machine"
    try:
        return f"chat by {ask(client, names, 'llm/chat', 'Say hello in one short sentence.')}"
    except OpenAIError as error:
        say("A", f"the model server of this machine did not answer: {error}")
        return "the model server of this machine did not answer"


def show() -> str:
    """The whole story; returns its last line."""
    with nodes() as group:
        a = start(group, "A", None)
        invitation = invite(a, uses=2)
        say("A", f"invite for two nodes, {len(invitation)} characters")
        b, c = start(group, "B", invitation), start(group, "C", invitation)
        index(b)
        index(c)
        began = time.perf_counter()
        wait_for_capability(a, ANSWERS, {"B", "C"})
        say("A", "knows what B and C can do", began)
        names = {node["peer_id"]: node["name"] for node in a.get("/v1/mesh/nodes")["nodes"]}
        client = OpenAI(base_url=a.base_url, api_key="unused", timeout=60, max_retries=0)
        size = embed(client, names)
        first = ask(client, names, ANSWERS, QUESTION)
        if first not in ("B", "C"):
            raise DemoError(f"{first} answered, which has no documents")
        dry_run(a, names)
        chat = chat_besides(a, client, names)
        {"B": b, "C": c}[first].kill()
        say(first, "killed (SIGKILL)")
        second, milliseconds = ask_survivors(client, names, first)
        return (f"demo ok: {size}-dimensional embeddings, {first} answered and was killed, {second} answered "
                f"{milliseconds:.0f} ms later, {chat}")


def main() -> int:
    began = time.perf_counter()
    try:
        line = show()
    except (DemoError, NodeFailed, OpenAIError, httpx2.HTTPError, subprocess.TimeoutExpired) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    print(f"{line} ({time.perf_counter() - began:.1f} s in all)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
