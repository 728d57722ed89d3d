"""Distillation losses against what defines them: their zeros, their invariances, and the same figures computed another way."""

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.detection import losses


def maps(seed: int, channels: int = 5, scale: float = 1.0) -> Tensor:
    return torch.randn(3, channels, 6, 4, generator=torch.Generator().manual_seed(seed)) * scale


def affine(x: Tensor) -> Tensor:
    """Another positive scale and offset for each channel."""
    n = x.shape[1]
    return x * torch.linspace(0.3, 4, n).view(1, n, 1, 1) + torch.linspace(-3, 5, n).view(1, n, 1, 1)


# ---- between maps

def test_pkd_is_one_less_the_correlation() -> None:
    student, teacher = maps(0), maps(0) * 0.5 + maps(1)
    by_numpy = [np.corrcoef(student[:, c].flatten(), teacher[:, c].flatten())[0, 1] for c in range(5)]
    assert losses.pkd(student, teacher).item() == pytest.approx(1 - np.mean(by_numpy), abs=1e-5)
    assert losses.pkd(student, -student).item() == pytest.approx(2, abs=1e-5)


def test_pkd_is_blind_to_scale_and_offset() -> None:
    student, teacher = maps(0), maps(1)
    assert losses.pkd(student, student).item() == 0
    found = losses.pkd(student, teacher).item()
    assert found > 0.5
    assert losses.pkd(affine(student), teacher).item() == pytest.approx(found, abs=1e-5)
    assert losses.pkd(student, affine(teacher)).item() == pytest.approx(found, abs=1e-5)


def test_pkd_bears_a_dead_channel() -> None:
    student = maps(0)
    student[:, 2] = 0.7
    student.requires_grad_()
    losses.pkd(student, maps(1)).backward()
    assert student.grad is not None and student.grad.isfinite().all()
    assert student.grad[:, 0].abs().max() > 0


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_cwd_is_a_divergence_over_cells(tau: float) -> None:
    student, teacher = maps(0), maps(1)
    p, q = ((x / tau).flatten(2).softmax(2).double() for x in (teacher, student))
    by_hand = (p * (p / q).log()).sum(2).mean() * tau**2
    assert losses.cwd(student, teacher, tau).item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert losses.cwd(student, student, tau).item() == pytest.approx(0, abs=1e-6)


def test_cwd_is_blind_to_an_offset_and_not_to_scale() -> None:
    student, teacher = maps(0), maps(1)
    found, offset = losses.cwd(student, teacher).item(), torch.linspace(-3, 5, 5).view(1, 5, 1, 1)
    assert losses.cwd(student + offset, teacher).item() == pytest.approx(found, rel=1e-4)
    assert losses.cwd(student * 3, teacher).item() > 1.5 * found


def test_mgd_learns_to_regenerate() -> None:
    """Smooth maps can be filled in from the cells that are left; from a student that shows nothing of them they cannot."""
    smooth = torch.nn.functional.interpolate(maps(0, channels=4)[:, :, :3, :3], scale_factor=4.0, mode="bilinear")
    course = {}
    for shown in (1, 0):
        torch.manual_seed(0)
        mgd, course[shown] = losses.MGD(4), list[float]()
        for _ in range(150):
            loss = mgd(smooth * shown, smooth)
            for p, gradient in zip(mgd.parameters(), torch.autograd.grad(loss, list(mgd.parameters())), strict=True):
                p.data -= 0.3 * gradient
            course[shown].append(loss.item())
    assert np.mean(course[1][-10:]) < 0.6 * np.mean(course[1][:3])
    assert np.mean(course[1][-10:]) < 0.6 * np.mean(course[0][-10:])


def test_mgd_blanks_the_share_it_says_from_torchs_generator() -> None:
    mgd, ones = losses.MGD(1, ratio=0.65), torch.ones(8, 1, 40, 40)
    seen: list[Tensor] = []
    mgd.generate.register_forward_pre_hook(lambda _, taken: seen.append(taken[0]))
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        mgd(ones, ones)
    assert seen[0].mean().item() == pytest.approx(0.35, abs=0.02)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


# ---- between scores

def test_logits_pull_towards_the_teacher() -> None:
    teacher, student = torch.randn(2, 6, 50) * 2, torch.zeros(2, 6, 50, requires_grad=True)
    assert losses.logits(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    losses.logits(student, teacher).backward()
    assert student.grad is not None and torch.equal(student.grad.sign(), -teacher.sign())


def test_logits_weigh_by_the_teachers_confidence() -> None:
    """One anchor of which the teacher is sure beside 200 of background: errors there count 200 times as much."""
    teacher = torch.full((1, 6, 201), -9.0)
    teacher[0, 2, 0] = 9.0
    sure, unsure = teacher.clone(), teacher.clone()
    sure[0, :, 0] += 1
    unsure[0, :, 1:] += 1
    assert losses.logits(sure, teacher) > 5 * losses.logits(unsure, teacher)


# ---- over the levels

STUDENT, TEACHER = (4, 6, 8), (4, 10, 8)


def necks(channels: tuple[int, ...], seed: int) -> list[Tensor]:
    return [torch.randn(2, n, 8 >> i, 8 >> i, generator=torch.Generator().manual_seed(seed + i)) for i, n in enumerate(channels)]


@pytest.mark.parametrize("kind", ["pkd", "cwd", "mgd"])
def test_neck_teaches_the_student_only(kind: losses.Kind) -> None:
    neck = losses.Neck(kind, STUDENT, TEACHER)
    students, teachers = ([x.requires_grad_() for x in necks(*which)] for which in ((STUDENT, 0), (TEACHER, 9)))
    neck(students, teachers).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in students)
    assert all(x.grad is None for x in teachers)
    assert all(p.grad is not None for p in neck.parameters())


def test_neck_adapts_only_where_channels_differ() -> None:
    assert [name for name, _ in losses.Neck("pkd", STUDENT, TEACHER).named_parameters()] == ["adapt.1.weight", "adapt.1.bias"]
    assert not list(losses.Neck("cwd", STUDENT, STUDENT).parameters())
    with pytest.raises(AssertionError, match="level 0"):
        losses.Neck("pkd", STUDENT, STUDENT)(necks(STUDENT, 0), [x[..., :-1] for x in necks(STUDENT, 1)])


@pytest.mark.parametrize("kind", ["pkd", "cwd"])
def test_neck_is_the_mean_over_levels(kind: losses.Kind) -> None:
    students, teachers = necks(STUDENT, 0), necks(STUDENT, 9)
    alone = [{"pkd": losses.pkd, "cwd": losses.cwd}[kind](s, t) for s, t in zip(students, teachers, strict=True)]
    assert losses.Neck(kind, STUDENT, STUDENT)(students, teachers).item() == pytest.approx(torch.stack(alone).mean().item())


@pytest.mark.parametrize("kind", ["pkd", "cwd", "mgd"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_out_full(kind: losses.Kind, dtype: torch.dtype) -> None:
    """Of maps as large as half precision bears, under autocast: their squares would be infinite."""
    neck = losses.Neck(kind, STUDENT, TEACHER)
    students, teachers = ([(x * 5_000).to(dtype) for x in necks(*which)] for which in ((STUDENT, 0), (TEACHER, 9)))
    with torch.autocast("cpu", torch.bfloat16):
        found = neck(students, teachers)
        scores = losses.logits(students[0].flatten(2), teachers[0].flatten(2))
    assert found.dtype == scores.dtype == torch.float32
    assert found.isfinite() and found > 0 and scores.isfinite()


# ---- its weight

def feed(balance: losses.Balance, steps: int, seed: int = 0) -> list[float]:
    """Terms around 0.02, boxes around 1.5; the factor of each step."""
    rng = np.random.default_rng(seed)
    return [balance(torch.tensor(0.02 * rng.uniform(0.5, 1.5)), torch.tensor(1.5 * rng.uniform(0.5, 1.5))).item() for _ in range(steps)]


def test_balance_finds_the_ratio() -> None:
    balance = losses.Balance()
    assert balance(torch.tensor(0.5), torch.tensor(2.0)).item() == pytest.approx(4)            # the first step's own
    balance = losses.Balance()
    factors = feed(balance, 300)
    assert factors[199] == pytest.approx(75, rel=0.1)                                          # a single step's ratio is off by 40 %
    assert len(set(factors[199:])) == 1, "it settles, so that a term that falls is seen to fall"


def test_balance_goes_on_after_a_save() -> None:
    whole, first, second = losses.Balance(), losses.Balance(), losses.Balance()
    feed(whole, 5), feed(first, 5)
    second.load_state_dict(first.state_dict())
    assert feed(second, 5, seed=1) == feed(whole, 5, seed=1)
    second.eval()
    assert len(set(feed(second, 5))) == 1


def test_balance_keeps_its_bounds_and_has_no_gradient() -> None:
    term = torch.tensor(0.0, requires_grad=True)
    assert losses.Balance()(term, torch.tensor(3.0)).item() == 1e3
    assert losses.Balance()(term + 1, torch.tensor(0.0)).item() == pytest.approx(1e-3)
    assert losses.Balance()(term, torch.tensor(0.0)).isfinite()
    assert not losses.Balance()(term + 1, torch.tensor(3.0)).requires_grad
