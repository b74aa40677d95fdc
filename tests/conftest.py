"""What holds for every test: nothing of ours tells of an error in its log, unless the test says that it expects one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure; `timeout` ends what hangs
settings.load_profile("no deadline")

OURS = ("atmosphere", "protocols", "transports", "simulations")


@pytest.fixture(autouse=True)
def no_errors_in_the_log(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test whose own process logged an error of ours: answered politely, it would pass for none."""
    yield
    if request.node.get_closest_marker("logs_errors") is None:
        told = [f"{record.name}: {record.getMessage()}\n{record.exc_text or record.exc_info or ''}"
                for phase in ("setup", "call") for record in caplog.get_records(phase)
                if record.levelno >= logging.ERROR and record.name.partition(".")[0] in OURS]
        assert not told, "\n".join(told)
