"""Every ``protocols/<name>/vectors.json`` against our own code; another implementation can run the same files.

A file is ``{"protocol", "message", "max_frame", "cases": [...]}``. A case has *name*, *hex*, and either *fields*, what
the bytes mean, or *error*, words of the reason why they are refused. *hex* is one whole frame, length included
(``"framed": false`` in the file: the bare message, as on gossip). *fields* has the set fields by their names in the
.proto: bytes as hex, 64-bit numbers as numbers, messages nested. *message* is the protobuf type; a case may name
another one of the same file. ``"reencodes": false``: valid, but not the bytes that we would write.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message

from protocols.framing import FrameDecoder, FrameError, encode_frame

ROOT = Path(__file__).resolve().parents[2] / "protocols"


def load() -> list[Any]:
    found = []
    for path in sorted(ROOT.glob("*/vectors.json")):
        content = json.loads(path.read_text())
        shared = {key: value for key, value in content.items() if key != "cases"}
        for case in content["cases"]:
            found.append(pytest.param(path.parent.name, {**shared, **case}, id=f"{path.parent.name}: {case['name']}"))
    return found


def parse(room: str, name: str, payload: bytes) -> Message:
    """By the protocol's own parser where it has one, which also checks what protobuf cannot say: ``parse_frame`` for
    a Frame, else the ``decode`` of the value of that name."""
    try:
        messages: Any = importlib.import_module(f"protocols.{room}.messages")
    except ModuleNotFoundError:
        messages = None
    own = getattr(messages, "parse_frame", None)
    decode = getattr(getattr(messages, name.rsplit(".", 1)[1], None), "decode", None)
    if decode is not None:
        decode(payload)
    module = importlib.import_module(f"protocols.{room}.{room}_pb2")
    kind = getattr(module, name.rsplit(".", 1)[1])
    assert kind.DESCRIPTOR.full_name == name
    message: Message = own(payload) if own is not None and name.endswith(".Frame") else kind.FromString(payload)
    assert type(message) is kind
    return message


def plain(value: object) -> object:
    if isinstance(value, Message):
        return {field.name: plain(item) for field, item in value.ListFields()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (str, int, float)):
        return value
    return [plain(item) for item in value]  # type: ignore[attr-defined]  # a repeated field


def read(room: str, case: dict[str, Any]) -> Message:
    payload = data = bytes.fromhex(case["hex"])
    if case.get("framed", True):
        decoder = FrameDecoder(case["max_frame"])
        frames = decoder.feed(data)
        decoder.end()
        (payload,) = frames
    return parse(room, case["message"], payload)


@pytest.mark.parametrize(("room", "case"), load())
def test_vector(room: str, case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(Exception, match="(?i)" + case["error"]) as refused:
            read(room, case)
        own = refused.type.__module__.startswith("protocols.")
        assert own or isinstance(refused.value, (FrameError, DecodeError))
        return
    message = read(room, case)
    assert plain(message) == case["fields"]
    if case.get("reencodes", True):
        payload = message.SerializeToString()
        assert (encode_frame(payload) if case.get("framed", True) else payload).hex() == case["hex"]


def test_there_are_vectors_of_both_kinds() -> None:
    cases = [case.values[1] for case in load()]
    assert any("error" in case for case in cases)
    assert any("fields" in case for case in cases)
