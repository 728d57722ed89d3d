"""MuSGD's steps in float32: the library's but for its rounding, and only where bfloat16 is emulated."""

import pytest
import torch
from ultralytics.optim import muon as library

from backend import device
from backend.detection import muon


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (3, 8, 8), (2, 5, 40)])
def test_it_is_the_librarys_but_for_rounding(shape: tuple[int, ...]) -> None:
    update = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    theirs, ours = library.zeropower_via_newtonschulz5(update).float(), muon.orthogonal(update)
    assert ours.dtype == torch.float32 and ours.shape == update.shape
    assert float((ours - theirs).norm() / theirs.norm()) < 0.05
    values = torch.linalg.svdvals(ours)
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3


def test_a_step_of_zeros_stays_zero() -> None:
    """The library pads matrices of a bucket with rows of zeros."""
    padded = torch.zeros(1, 4, 6)
    padded[0, :2] = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    found = muon.orthogonal(padded)
    assert not found[0, 2:].any() and torch.equal(found[0, :2].isfinite(), torch.ones(2, 6, dtype=torch.bool))
    assert torch.allclose(found[0, :2], muon.orthogonal(padded[0, :2]), atol=1e-5)


@pytest.mark.parametrize("native", [True, False])
def test_only_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    before = library.zeropower_via_newtonschulz5
    monkeypatch.setattr(library, "zeropower_via_newtonschulz5", before)          # and it is put back afterwards
    monkeypatch.setattr(muon, "computes_bf16", lambda: native)
    muon.fit_to_machine()
    assert library.zeropower_via_newtonschulz5 is (before if native else muon.orthogonal)
    weight = torch.nn.Parameter(torch.ones(4, 9))
    step = library.MuSGD([dict(params=[weight], lr=0.1, momentum=0.9, use_muon=True)])
    weight.grad = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    step.step()
    assert weight.isfinite().all() and not torch.equal(weight, torch.ones(4, 9))


@pytest.mark.parametrize("native, precision, used", [(True, "auto", True), (True, "bf16", True), (True, "f32", False),
                                                     (False, "auto", False), (False, "bf16", True), (False, "f32", False)])
def test_who_asks_for_bfloat16_where_it_is_emulated_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                            native: bool, precision: str, used: bool) -> None:
    monkeypatch.setattr(device, "computes_bf16", lambda: native)
    device._warn_emulated.cache_clear()
    assert device.in_bf16(precision) == device.in_bf16(precision) == used
    assert capsys.readouterr().out.count("imitated") == (precision == "bf16" and not native), "once"
