"""The fusion: nothing at first, its own channels per tap, features where they belong, gradients everywhere, cheap."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.teacher import fusion
from backend.teacher.fusion import FAST, CrossFusion, Fusion, SpectralFilter, TapReduction
from backend.teacher.resvae import ResVAE

WIDTHS = [128, 128, 64, 32]
BACKBONE = (128, 128, 256)          # of YOLO11n, layers 4, 6, 10


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def detector_maps(batch: int = 2, side: int = 16, channels: tuple[int, ...] = BACKBONE) -> list[Tensor]:
    return [torch.randn(batch, n, side >> i, side >> i) for i, n in enumerate(channels)]


def opened(network: Fusion) -> Fusion:
    """As after some training: gates and gains off their start."""
    for level in network.levels:
        torch.nn.init.normal_(level.gate, std=0.1)
    if isinstance(network.filter, SpectralFilter):
        torch.nn.init.normal_(network.filter.delta, std=0.1)
    return network


def step(network: Fusion, features: Tensor, maps: list[Tensor]) -> list[Tensor]:
    """A step in which each source fills one network input."""
    context = F.interpolate(network.project(features), size=maps[0].shape[-2:], mode="bilinear")
    contexts = network.contexts(context)
    return [network.fuse(i, x, contexts) for i, x in enumerate(maps)]


def descend(parameters: Iterable[Tensor], rate: float) -> None:
    """One step of gradient descent; torch.optim takes seconds to import."""
    with torch.no_grad():
        for p in parameters:
            p -= rate * p.grad


# ---- the filter

@pytest.mark.parametrize("size", [(25, 25), (28, 28), (7, 12), (1, 1)])
def test_filter_starts_as_the_identity(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 6, *size)
    assert torch.equal(SpectralFilter(6)(maps), maps)


@pytest.mark.parametrize("size", [(25, 25), (28, 28), (7, 12), (1, 2)])
def test_filter_is_gains_between_two_fourier_transforms(size: tuple[int, int]) -> None:
    """The same result and the same gradients as by rfft2 and irfft2 with gains over radial frequency."""
    filtered, results = SpectralFilter(3), list[list[Tensor]]()
    torch.nn.init.normal_(filtered.delta, std=0.2)
    radius = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]) / 0.5**0.5 * (fusion.BINS - 1)
    below = radius.floor().long().clamp(max=fusion.BINS - 2)

    def by_fft(maps: Tensor) -> Tensor:
        gains = 1 + FAST * torch.lerp(filtered.delta[:, below], filtered.delta[:, below + 1], radius - below)
        return torch.fft.irfft2(torch.fft.rfft2(maps) * gains, s=size)

    maps, upstream = torch.randn(2, 3, *size, requires_grad=True), torch.randn(2, 3, *size)
    for way in (filtered, by_fft):
        made = way(maps)
        results.append([made, *torch.autograd.grad((made * upstream).sum(), (maps, filtered.delta))])
    assert all((a - b).abs().max() < 1e-5 * b.abs().max() for a, b in zip(*results, strict=True))
    assert not torch.allclose(results[0][0], maps, atol=0.1)


def test_filter_takes_out_what_it_is_told() -> None:
    """Waves of one frequency each: a gain of 0 for the fine half removes the fine one, along x, y and both, and keeps the coarse."""
    filtered, grid = SpectralFilter(1), torch.arange(24) / 24 * 2 * torch.pi
    filtered.delta.data[:, 8:] = -1 / FAST                                     # bin 8 of 0…15: 0.38 of the sampling rate along an axis
    coarse, fine = (2 * grid).cos(), (11 * grid).cos()                       # 0.08 and 0.46 of it
    for wave in (lambda w: w[None].expand(24, 24), lambda w: w[:, None].expand(24, 24)):
        kept, gone = filtered(wave(coarse)[None, None]), filtered(wave(fine)[None, None])
        assert torch.allclose(kept[0, 0], wave(coarse), atol=1e-5) and gone.abs().max() < 1e-5
    assert filtered((fine[:, None] * fine)[None, None]).abs().max() < 1e-5
    mean = torch.full((1, 1, 24, 24), 3.0)
    assert torch.allclose(filtered(mean), mean, atol=1e-5)


def test_filter_moves_nothing_and_treats_channels_apart() -> None:
    filtered = SpectralFilter(2)
    torch.nn.init.normal_(filtered.delta[0])
    maps = torch.zeros(1, 2, 25, 25)
    maps[:, :, 12, 9] = 1
    spot = filtered(maps)
    assert torch.equal(spot[:, 1], maps[:, 1]) and not torch.allclose(spot[:, 0], maps[:, 0], atol=0.01)
    around = spot[0, 0, 4:21, 1:18]                                          # the spot in its middle
    assert torch.allclose(around, around.flip(0), atol=1e-5) and torch.allclose(around, around.flip(1), atol=1e-5)


# ---- the reduction

def test_reduction_reads_each_tap_from_its_own_channels() -> None:
    reduce, features = TapReduction([3, 5, 2], 4), torch.randn(2, 10, 6, 7)
    before = reduce(features)
    assert before.shape == (2, 12, 6, 7)
    features[:, 3:8] += 1
    changed = (reduce(features) - before).abs().amax((0, 2, 3)) > 1e-3
    assert changed.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_reduction_is_a_convolution_per_tap() -> None:
    reduce, features = TapReduction([3, 5], 4), torch.randn(2, 8, 6, 7)
    torch.nn.init.normal_(reduce.bias)
    second = F.conv2d(features[:, 3:], reduce.weight[:, 3:, None, None], reduce.bias[4:])
    assert torch.allclose(reduce(features)[:, 4:], second, atol=1e-5)
    with pytest.raises(AssertionError, match="channels"):
        reduce(features[:, :7])


def test_folded_is_expanded_and_reduced() -> None:
    """One small product for two large ones: the same maps, and the same gradients for all that learns."""
    network, compressor = opened(Fusion([24, 16, 8], BACKBONE)), ResVAE([24, 16, 8], 6, decoder=10)
    for parameter in (*compressor.parameters(), network.reduce.bias):
        torch.nn.init.normal_(parameter, std=0.3)
    latents, upstream, results = torch.randn(3, 6, 9, 7), torch.randn(3, 63, 9, 7), list[list[Tensor]]()
    with torch.no_grad():
        hidden, features = compressor.hidden(latents), compressor.decode(latents)
        weight, bias = compressor.expansion()
    assert hidden.shape[1] == 16 < features.shape[1] == 48
    for given in ((features,), (hidden, (weight, bias))):
        made = network.project(*given)
        learnt = (network.reduce.weight, network.reduce.bias, network.filter.delta)
        results.append([made, *torch.autograd.grad((made * upstream).sum(), learnt)])
    assert all(a.abs().max() > 0.1 and torch.allclose(a, b, atol=1e-4, rtol=1e-3) for a, b in zip(*results, strict=True))


# ---- a level

@pytest.mark.parametrize("dynamic", [True, False])
def test_at_first_nothing_is_added(dynamic: bool) -> None:
    network = Fusion(WIDTHS, BACKBONE, dynamic)
    maps = detector_maps()
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            assert all(torch.equal(a, b) for a, b in zip(step(network, torch.randn(2, 352, 25, 25), maps), maps, strict=True))
    assert network.gates() == dict(gate_p3=0, gate_p4=0, gate_p5=0)


def test_the_gate_opens_first_and_then_all_learns() -> None:
    """At zero gates the gradient reaches them alone, or nothing would ever begin; after one step it reaches every parameter."""
    network, features, maps = Fusion(WIDTHS, BACKBONE), torch.randn(2, 352, 25, 25), detector_maps()
    reached = []
    for _ in range(2):
        network.zero_grad()
        sum((fused * x.sin()).sum() for fused, x in zip(step(network, features, maps), maps, strict=True)).backward()
        reached.append({name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0})
        descend(network.parameters(), 0.1)
    names = {name for name, _ in network.named_parameters()}
    assert reached[0] == {name for name in names if name.endswith(".gate")}
    assert reached[1] == names
    assert all(gate > 0 for gate in network.gates().values())


def test_a_feature_reaches_its_own_cell() -> None:
    """A change of the context at one cell is felt there far more than elsewhere, though all cells may look at it."""
    level = CrossFusion(32, taps=2, width=8, dynamic=True)
    torch.nn.init.ones_(level.gate)
    x, context = torch.randn(1, 32, 20, 20), torch.randn(1, 16, 20, 20)
    before = level(x, context)
    context[:, :, 13, 4] += 3
    felt = (level(x, context) - before).abs().sum(1)[0]                      # (20, 20)
    assert divmod(int(felt.argmax()), 20) == (13, 4)
    assert 0 < felt[:8, 10:].max() < 0.2 * felt[13, 4]


def test_the_attention_looks_everywhere() -> None:
    level = CrossFusion(32, taps=2, width=8, dynamic=False)
    torch.nn.init.ones_(level.gate)
    for layer in (level.local, level.around):
        torch.nn.init.zeros_(layer.weight)                                   # what is left is attention
    x, context = torch.randn(1, 32, 20, 20), torch.randn(1, 16, 20, 20)
    before = level(x, context)
    context[:, :, 13, 4] += 30
    assert (level(x, context) - before).abs().sum(1).min() > 0


def test_weights_over_taps_belong_to_the_image() -> None:
    level = CrossFusion(32, taps=4, width=8, dynamic=True)
    x, context = torch.randn(3, 32, 8, 8) + torch.randn(3, 32, 1, 1), torch.randn(3, 32, 8, 8)
    level(x, context)
    first = level.weights
    assert first is not None and first.shape == (3, 4) and not first.requires_grad
    assert torch.allclose(first.sum(1), torch.ones(3)) and (first - 0.25).abs().max() < 0.05       # near uniform at the start
    torch.nn.init.normal_(level.tap_weights.out.weight)
    level(x, context)
    assert level.weights.std(0).min() > 0.01                                 # and an image's own once learnt
    alone = level.weights[1]
    level(x[1:2], context[1:2])
    assert torch.allclose(level.weights[0], alone, atol=1e-5)


def test_weights_are_told_as_means_over_what_was_learnt_from() -> None:
    network, maps = Fusion([8, 8, 8], (8, 16, 24)), [detector_maps(n, channels=(8, 16, 24)) for n in (2, 3)]
    for level in network.levels:
        torch.nn.init.normal_(level.tap_weights.out.weight)
    seen = []
    for some in maps:
        step(network.train(), torch.randn(len(some[0]), 24, 9, 9), some)
        seen += [level.weights for level in network.levels]
    step(network.eval(), torch.randn(2, 24, 9, 9), maps[0])                   # looked at, but not learnt from
    assert network.tap_weights() == pytest.approx(torch.cat(seen).mean(0).tolist())
    assert network.tap_weights() == [] and Fusion([8, 8, 8], (8, 16, 24), dynamic=False).tap_weights() == []


def test_attention_in_one_piece_is_what_is_written_out() -> None:
    asked = [torch.randn(2, 4, n, 16, requires_grad=True) for n in (30, 9, 9)]
    upstream, results = torch.randn(2, 4, 30, 16), list[list[Tensor]]()
    for way in (F.scaled_dot_product_attention, fusion._attention):
        made = way(*asked)
        results.append([made, *torch.autograd.grad((made * upstream).sum(), asked)])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results, strict=True))


def test_equal_weights_leave_the_context_as_it_is() -> None:
    level, context, seen = CrossFusion(32, taps=4, width=8, dynamic=False), torch.randn(2, 32, 8, 8), list[Tensor]()
    level.local.register_forward_pre_hook(lambda _, taken: seen.append(taken[0]))
    level(torch.randn(2, 32, 8, 8), context)
    assert torch.equal(seen[0], context)
    assert level.weights is not None and level.weights.tolist() == [[0.25] * 4] * 2


def test_a_tap_without_weight_does_not_count() -> None:
    level = CrossFusion(32, taps=4, width=8, dynamic=True)
    torch.nn.init.ones_(level.gate)
    level.tap_weights.out.bias.data[2] = -50
    x, context = torch.randn(2, 32, 8, 8), torch.randn(2, 32, 8, 8)
    before = level(x, context)
    context[:, 16:24] += 1
    assert torch.allclose(level(x, context), before, atol=1e-5)
    context[:, :8] += 1
    assert not torch.allclose(level(x, context), before, atol=0.01)


def test_one_image_alone_is_as_in_its_batch() -> None:
    """No statistic is shared: batches of one, train and eval give the same."""
    network, features, maps = opened(Fusion(WIDTHS, BACKBONE)), torch.randn(3, 352, 25, 25), detector_maps(3)
    together = step(network.train(), features, maps)
    alone = step(network.eval(), features[1:2], [x[1:2] for x in maps])
    assert all(torch.allclose(a[1:2], b, atol=1e-4) for a, b in zip(together, alone, strict=True))
    assert not torch.allclose(together[0], maps[0], atol=0.01)


# ---- the whole

def test_contexts_are_means() -> None:
    context = torch.randn(1, 64, 8, 12)
    p3, p4, p5 = Fusion(WIDTHS, BACKBONE).contexts(context)
    assert torch.equal(p3, context)
    assert p4[0, 7, 1, 2].item() == pytest.approx(context[0, 7, 2:4, 4:6].mean().item(), abs=1e-6)
    assert p5.shape == (1, 64, 2, 3) and p5[0, 9, 1, 0].item() == pytest.approx(context[0, 9, 4:8, :4].mean().item(), abs=1e-6)


@pytest.mark.parametrize("taps", [1, 3, 7, 12])
@pytest.mark.parametrize("spectral_filter", [True, False])
def test_any_number_of_taps(taps: int, spectral_filter: bool) -> None:
    network = opened(Fusion([24] * taps, (8, 16, 24), spectral_filter=spectral_filter))
    projected = network.project(torch.randn(5, 24 * taps, 25, 25))
    assert projected.shape == (5, taps * max(8, 64 // taps), 25, 25)
    assert [x.shape for x in step(network, torch.randn(2, 24 * taps, 9, 9), detector_maps(channels=(8, 16, 24)))] \
        == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 24, 4, 4)]


def test_autocast_changes_little() -> None:
    """bfloat16 throughout but for the FFT: near the full result, float32 to be warped, and in the type of the detector's maps."""
    network, features = opened(Fusion(WIDTHS, BACKBONE)), torch.randn(2, 352, 25, 25)
    maps = [x.to(memory_format=torch.channels_last).requires_grad_() for x in detector_maps()]
    full = step(network, features, maps)
    with torch.autocast("cpu", torch.bfloat16):
        half = step(network, features.bfloat16(), [x.bfloat16() for x in maps])
        assert network.project(features).dtype == torch.float32
    assert all(x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last) for x in half)
    added = [((a - x).detach(), (b.float() - x).detach()) for a, b, x in zip(full, half, maps, strict=True)]
    assert all((a - b).abs().mean() < 0.1 * a.abs().mean() for a, b in added)
    sum(x.float().sum() for x in half).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_an_image_without_sources() -> None:
    network, maps = opened(Fusion(WIDTHS, BACKBONE)), detector_maps()
    contexts = network.contexts(torch.zeros(2, 64, 16, 16))
    assert all(network.fuse(i, x, contexts).isfinite().all() for i, x in enumerate(maps))


def test_what_was_saved_before_still_fits() -> None:
    """The names and shapes that kept teachers have on disk."""
    level = {"gate", "norm.weight", "norm.bias", "query.weight", "query.bias", "key_value.weight", "local.weight", "local.bias",
             "around.weight", "around.bias", "norm_out.weight", "norm_out.bias", "out.weight", "out.bias"}
    level |= {f"tap_weights.{layer}.{part}" for layer in ("hidden", "out") for part in ("weight", "bias")}
    state = Fusion(WIDTHS, BACKBONE).state_dict()
    assert set(state) == {"reduce.weight", "reduce.bias", "filter.delta"} | {f"levels.{i}.{name}" for i in range(3) for name in level}
    assert state["reduce.weight"].shape == (16, 352) and state["filter.delta"].shape == (64, 16)


def test_goes_on_after_a_save_and_a_copy() -> None:
    network, features, maps = opened(Fusion(WIDTHS, BACKBONE)), torch.randn(2, 352, 25, 25), detector_maps()
    told, other = step(network, features, maps), Fusion(WIDTHS, BACKBONE)
    other.load_state_dict(network.state_dict())
    for again in (other, copy.deepcopy(network)):                            # the average of the weights is a copy, taken at any time
        assert all(torch.equal(a, b) for a, b in zip(step(again, features, maps), told, strict=True))
    assert other.gates() == network.gates() and network.gates()["gate_p3"] == pytest.approx(0.36, abs=0.08)


def test_small_beside_the_detector() -> None:
    """YOLO11n has 2.6 M parameters; the channels are those of the real network."""
    from ultralytics.nn.tasks import DetectionModel

    detector, seen = DetectionModel("yolo11n.yaml", verbose=False), {}
    for i in (4, 6, 10):
        detector.model[i].register_forward_hook(lambda *now, i=i: seen.__setitem__(i, now[2].shape))
    detector(torch.zeros(1, 3, 64, 64))
    assert tuple(seen[i][1] for i in (4, 6, 10)) == BACKBONE and [seen[i][2] for i in (4, 6, 10)] == [8, 4, 2]
    assert sum(p.numel() for p in Fusion(WIDTHS, BACKBONE).parameters()) < 0.15e6 < sum(p.numel() for p in detector.parameters()) / 10


def test_keys_are_few() -> None:
    """Attention over every cell of a large map would be most of a step."""
    asked: list[int] = []
    level = CrossFusion(32, taps=2, width=8, dynamic=False)
    level.key_value.register_forward_pre_hook(lambda _, taken: asked.append(taken[0].shape[1]))
    for size in ((80, 80), (14, 28), (20, 4)):
        level(torch.randn(1, 32, *size), torch.randn(1, 16, *size))
    assert asked == [fusion.KEYS**2, fusion.KEYS**2, fusion.KEYS * 4]
