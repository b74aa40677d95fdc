"""API keys without a server: shown once, kept as hashes, compared whole, ended at once and from outside too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atmosphere.audit import AuditLog
from atmosphere.env import FixedEnv, SystemEnv
from atmosphere.identity import api_keys
from atmosphere.identity.api_keys import ApiKey, ApiKeyError, ApiKeys
from atmosphere.store import Store


@pytest.fixture
def env() -> FixedEnv:
    return FixedEnv()


@pytest.fixture
def store(env: FixedEnv) -> Iterator[Store]:
    store = Store.memory(env)
    yield store
    store.close()


def test_a_key_opens_until_it_is_revoked(store: Store, env: FixedEnv) -> None:
    keys = ApiKeys(store, env)
    assert not keys.any
    text = keys.create("laptop", ["call:llm/chat"])
    other = keys.create("phone")
    key = keys.check(text)
    assert key == ApiKey(text.split("_")[1], "laptop", ("call:llm/chat",), key.created_at if key else 0)
    assert keys.any
    assert keys.revoke(key.id).revoked_at is not None
    assert keys.check(text) is None
    assert keys.check(other) is not None
    with pytest.raises(ApiKeyError, match="keys list"):
        keys.revoke(key.id)


def test_only_a_hash_is_kept(tmp_path: Path) -> None:
    """Who has the database has no key; who has the list neither."""
    env = SystemEnv()
    store = Store(tmp_path / "node.db", env)
    keys = ApiKeys(store, env)
    text = keys.create("laptop")
    secret = text.rpartition("_")[2]
    store.close()
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    assert secret not in repr(keys)


def test_a_restart_keeps_keys_and_revocations(tmp_path: Path, env: FixedEnv) -> None:
    store = Store(tmp_path / "node.db", env)
    keys = ApiKeys(store, env)
    live, dead = keys.create("a"), keys.create("b")
    keys.revoke(dead.split("_")[1])
    store.close()
    store = Store(tmp_path / "node.db", env)
    again = ApiKeys(store, env)
    assert again.check(live) is not None
    assert again.check(dead) is None
    assert [(key.name, key.revoked_at is None) for key in again.list()] == [("a", True), ("b", False)]
    store.close()


def test_every_character_counts(store: Store, env: FixedEnv) -> None:
    """No other spelling, no prefix, no other key's id opens."""
    keys = ApiKeys(store, env)
    text, other = keys.create("a"), keys.create("b")
    for place in range(len(text)):
        changed = text[:place] + ("b" if text[place] != "b" else "c") + text[place + 1:]
        assert keys.check(changed) is None
    crossed = "_".join((*text.split("_")[:2], other.split("_")[2]))
    for wrong in ("", "atm_", text[:-1], text + "a", text.upper(), f" {text}", f"{text}\n", crossed,
                  text.replace("_", "-"), f"atm_{text.split('_')[1]}_"):
        assert keys.check(wrong) is None
    assert keys.check(text) is not None


@pytest.fixture(scope="module")
def one_key() -> Iterator[ApiKeys]:
    store = Store.memory(FixedEnv())
    keys = ApiKeys(store, FixedEnv())
    keys.create("the only one")
    yield keys
    store.close()


@given(st.text() | st.from_regex(api_keys._TEXT, fullmatch=True))
def test_no_other_text_opens(one_key: ApiKeys, text: str) -> None:
    assert one_key.check(text) is None


@pytest.mark.parametrize(("name", "scopes", "reason"), [
    ("", ["call:*"], "name"), ("x" * 65, ["call:*"], "name"), ("a\nb", ["call:*"], "name"),
    ("a", [], "0 scopes"), ("a", ["call:*"] * 17, "17 scopes"), ("a", ["calls everything"], "not a scope"),
    ("a", ["serve"], "for calls only"), ("a", ["call:llm/chat", "invite"], "for calls only"),
    ("a", ["admin"], "for calls only"),
])
def test_what_cannot_be_made(store: Store, env: FixedEnv, name: str, scopes: list[str], reason: str) -> None:
    keys = ApiKeys(store, env)
    with pytest.raises(ApiKeyError, match=reason):
        keys.create(name, scopes)
    assert keys.list() == ()
    assert AuditLog(store, env).query_now() == ()


def test_numbers_are_bounded(store: Store, env: FixedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many keys in force, so many revoked ones remembered, the oldest forgotten first."""
    monkeypatch.setattr(api_keys, "MAX_KEYS", 3)
    monkeypatch.setattr(api_keys, "MAX_REVOKED", 2)
    keys = ApiKeys(store, env)
    for number in range(6):
        env.advance(1)
        keys.revoke(keys.create(f"old {number}").split("_")[1])
    texts = [keys.create(f"new {number}") for number in range(3)]
    with pytest.raises(ApiKeyError, match="keys revoke"):
        keys.create("one too many")
    assert {key.name for key in keys.list()} == {"old 4", "old 5", "new 0", "new 1", "new 2"}
    assert all(keys.check(text) for text in texts)


@pytest.mark.parametrize(("scopes", "allowed"), [
    (["*"], {"chat", "embed", "odd"}), (["call"], {"chat", "embed", "odd"}), (["call:*"], {"chat", "embed", "odd"}),
    (["call:llm"], {"chat", "embed"}), (["call:llm/*"], {"chat", "embed"}), (["call:llm/chat"], {"chat"}),
    (["call:llm/chat/chat"], {"chat"}), (["call:llm/chat/complete"], set()), (["call:llm/cha"], set()),
    (["call:llm/embed", "call:llm/chat"], {"chat", "embed"}), (["call:odd/*"], {"odd"}), (["call:odd/kind"], set()),
])
def test_what_a_key_may_call(scopes: list[str], allowed: set[str]) -> None:
    """By type and tool, whole words each; also a tool that has no scope of its own."""
    key = ApiKey("id", "name", tuple(scopes), 0.0)
    kinds = {"chat": ("llm/chat", "chat"), "embed": ("llm/embed", "embed"), "odd": ("odd/kind-" + "y" * 55, "a b*")}
    assert {name for name, (kind, tool) in kinds.items() if key.may_call(kind, tool)} == allowed


async def test_a_change_from_outside_is_noticed(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A command edits the database of a running node: within a second the node knows; in between it does not look."""
    env = FixedEnv()
    running, command = Store(tmp_path / "node.db", env), Store(tmp_path / "node.db", env)
    keys, tool = ApiKeys(running, env), ApiKeys(command, env)
    text = tool.create("laptop")
    await keys.refresh()
    assert keys.check(text) is None
    await trio.sleep(api_keys.REFRESH_S)
    await keys.refresh()
    assert keys.check(text) is not None
    tool.revoke(text.split("_")[1])
    await trio.sleep(api_keys.REFRESH_S)
    await keys.refresh()
    assert keys.check(text) is None
    running.close()
    command.close()


async def test_making_and_revoking_are_audited(store: Store, env: FixedEnv) -> None:
    """In the same transaction, and without the secret."""
    keys = ApiKeys(store, env)
    text = keys.create("laptop", ["call:llm/chat"])
    _, key_id, secret = text.split("_")
    keys.revoke(key_id)
    revoked, added = await AuditLog(store, env).query()
    assert (added.kind, added.subject, added.outcome) == ("key_added", f"key:{key_id} laptop", "call:llm/chat")
    assert (revoked.kind, revoked.subject) == ("key_revoked", f"key:{key_id} laptop")
    assert secret not in repr((added, revoked))
