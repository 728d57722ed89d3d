"""LICENSES.md names every locked package in its locked version, and none whose licence does not go together with ours."""

import re

import pytest

from tests import audit, licences


@pytest.fixture(scope="module")
def listed() -> dict[str, tuple[str, str, str]]:
    """Name: version, licence, verdict."""
    found = re.findall(r"^\| ([\w.-]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", licences.FILE.read_text(), re.MULTILINE)
    return {name: (version, said, verdict) for name, version, said, verdict in found if name not in ("package", "---")}


def test_it_is_of_these_locks(listed: dict[str, tuple[str, str, str]]) -> None:
    wanted = {name: version for lock in reversed(licences.LOCKS) for name, version in licences.locked(lock).items()}
    assert {n: v for n, (v, _, _) in listed.items()} == wanted, "run `make licences`"
    assert len(wanted) > 100


def test_all_of_them_go_together_with_ours(listed: dict[str, tuple[str, str, str]]) -> None:
    assert {verdict for _, _, verdict in listed.values()} <= {"goes together", "apart", "not here"}
    apart = {name for name, (_, _, verdict) in listed.items() if verdict == "apart"}
    assert all(name.startswith(("nvidia-", "cuda-")) for name in apart), "the GPU's own libraries alone"


@pytest.mark.parametrize(("said", "verdict"), [
    ("MIT", "goes together"), ("Apache Software License", "goes together"), ("BSD-3-Clause AND MIT", "goes together"),
    ("LicenseRef-NVIDIA-SOFTWARE-LICENSE", "apart"), ("Other/Proprietary License", "apart"), ("All rights reserved", "?"), ("", "?")])
def test_what_nobody_knows_is_not_passed_over(said: str, verdict: str) -> None:
    assert licences.verdict(said) == verdict


def test_an_audit_that_could_ask_nobody_is_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    good, skipped = dict(name="a", version="1", vulns=[]), dict(name="b", version="1", skip_reason="not found")
    hole = dict(name="c", version="1", vulns=[dict(id="X-1", fix_versions=["2"])])
    assert [audit.told("lock", found) for found in ([good], [skipped, skipped], [good, skipped], [good, hole, skipped])] == [0, 3, 3, 1]
    said = capsys.readouterr().out
    assert audit.UNREACHED in said and "Nobody knows of 1: b" in said and "c 1: X-1, mended in 2" in said
