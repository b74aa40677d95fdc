"""The guard for the pinned library."""

import pytest

from transports.libp2p.version import CHECKED_VERSION, require_checked_version


def test_the_installed_library_is_the_checked_one() -> None:
    require_checked_version()


def test_another_version_is_refused_with_the_way_out() -> None:
    with pytest.raises(RuntimeError, match=f"pip install libp2p=={CHECKED_VERSION}"):
        require_checked_version("0.9.0")
