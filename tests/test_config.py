"""config.yaml: what is written is read back; a wrong setting is named with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmosphere.config import (
    BackendConfig,
    Config,
    ConfigError,
    CostConfig,
    NameConfig,
    RoutingConfig,
    home_folder,
    load,
    save,
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    config = Config(
        name="laptop",
        port=4001,
        bootstrap=("/ip4/192.0.2.1/tcp/4001/p2p/x",),
        mdns=False,
        backends=(
            BackendConfig("http://127.0.0.1:8000", key_env="KEY"),
            BackendConfig("http://h:1", "ollama", continuation=True, price_micros=2500, labels=("cloud",)),
        ),
        aliases={"best": ("llama3.2",), "chat": ("qwen3-vllm", "qwen3-ollama")},
        grace_s=2.5,
        names={"best-code": NameConfig(type="llm/chat", text="writes code", labels=("gpu",), prefer="fast")},
        routing=RoutingConfig(stay=("knowledge/*",), never=("peer",), avoid_labels=("cloud",), max_price_micros=5),
        cost=CostConfig(metered=True, peak_hours="09:00-17:00, 22:00-06:00", peak_multiplier=2.0),
    )
    save(tmp_path, config)
    loaded = load(tmp_path)
    assert loaded == config
    assert dict(loaded.aliases) == {"best": ("llama3.2",), "chat": ("qwen3-vllm", "qwen3-ollama")}
    assert "best: llama3.2\n" in (tmp_path / "config.yaml").read_text(), "one name is written as one name"


def test_only_what_differs_from_the_defaults_is_written(tmp_path: Path) -> None:
    save(tmp_path, Config(name="pi"))
    assert (tmp_path / "config.yaml").read_text() == "version: 1\nname: pi\n"


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Config()


WRONG = {
    "colour: red": "unknown setting colour; known are",
    "port: many": "port: expected int, found 'many'",
    "port: true": "port: expected int",
    "mdns: 3": "mdns: expected bool",
    "bootstrap: one": "bootstrap: expected a list",
    "backends: [{kind: openai}]": "url",
    "aliases: {chat: []}": "aliases: chat: expected a model's name or a list of names, found []",
    "aliases: {chat: [a, 3]}": "aliases: chat: expected a model's name or a list",
    "aliases: {chat: 3}": "aliases: chat: expected a model's name or a list",
    "cost: {peak_hours: 9-17}": "cost: peak_hours: expected times like 09:00-17:00, found '9-17'",
    "cost: {peak_hours: '09:00-25:00'}": "cost: peak_hours",
    "cost: {peak_hours: '09:00-09:00'}": "cost: peak_hours",
    "cost: {multiplier: 0}": "cost: multiplier: expected a number above 0, found 0.0",
    "cost: {metered_connection_multiplier: -1}": "cost: metered_connection_multiplier",
    "cost: {metered: maybe}": "metered: expected bool",
    "cost: {battery: 2}": "unknown setting battery",
    "routing: {stay: llm}": "stay: expected a list",
    "routing: {decision_model: sometimes}": "decision_model is 'sometimes'; known are off, ambiguous, always",
    "routing: {decision_deadline_ms: 0}": "decision_deadline_ms: expected 1 to 10000, found 0",
    "routing: {decision_below: 2}": "decision_below: expected a probability, found 2.0",
    "names: {fast: llama}": "names: fast: expected NameConfig, found 'llama'",
    "names: {fast: {prefer: slow}}": "prefer is 'slow'; known are fast, cheap, near",
    "backends: [{url: 'http://h', price_micros: -1}]": "price_micros: expected 0 or more, found -1",
    "version: 9": "version 9; this release reads version 1",
    "[1, 2]": "expected settings like",
    "name: [": "not readable YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_refused_with_the_setting_and_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path)
    assert WRONG[text] in str(raised.value)
    assert "config.yaml" in str(raised.value)


def test_the_home_is_the_option_then_the_variable_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("ATMOSPHERE_HOME", raising=False)
    assert home_folder() == Path("/h/.atmosphere")
    monkeypatch.setenv("ATMOSPHERE_HOME", "/v")
    assert home_folder() == Path("/v")
    assert home_folder("/o") == Path("/o")


def test_the_word_off_may_be_written_bare(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("routing: {decision_model: off}")
    settings = load(tmp_path)
    assert settings.routing.decision_model == "off"
    save(tmp_path, settings)
    assert load(tmp_path) == settings
