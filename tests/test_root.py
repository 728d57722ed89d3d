"""As root the server answers at its own machine alone, and says that another account is better."""

import os

import pytest

from backend.errors import ConfigError
from backend.jobs import privileges


@pytest.fixture(params=[0, 1000], ids=["root", "another"])
def account(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "geteuid", lambda: request.param)
    monkeypatch.delenv(privileges.WORD, raising=False)
    return int(request.param)


def test_at_this_machine_it_starts_and_root_is_told(account: int) -> None:
    for address in ("127.0.0.1", "localhost", "::1"):
        assert privileges.warning(address) == ("" if account else privileges.HERE)


@pytest.mark.parametrize("address", [None, "0.0.0.0", "10.0.0.5", "::"])
def test_wider_root_does_not_start_unless_somebody_knows_better(account: int, address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if account == 0:
        with pytest.raises(ConfigError, match="does not listen beyond this machine"):
            privileges.warning(address)
        monkeypatch.setenv(privileges.WORD, "allowed")
    assert privileges.warning(address) == ""
