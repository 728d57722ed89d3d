"""How long each piece of the synthesis benchmark takes, for `--help`: core minutes on a CPU, from measured costs of steps.

Zen 3, float32: ADAPTING follows from LEARNING by the size of the pictures, the last two from how long runs took beside others; what is
laid, seen or read, and how much larger tiles are, was measured on a Zen 4 in bf16.

Knows nothing of what is there already.
"""

from tests.benchmarks.synthesis_arms import CLASSES, RATIO, SPARE, TENTH
from tests.benchmarks.synthesis_data import LEFT, RARE, TRAIN
from tests.benchmarks.synthesis_lab import BATCH, Shape, steps_of

# Core seconds. Surface prior of the preset small; pictures of 200 px, as NEU-DET has them, but for the tiles, which are LARGER
CODING, LEARNING = 2.9 / 16, 1.1 / 16        # a crop, through a step of autoencoder and diffusion network
ADAPTING = 0.21                              # a picture, through a step of tokens or low-rank changes
PASS, CODED = 0.07, 0.46                     # once through the diffusion network; encoded and decoded
LAID, SEEN, CLASSIFIED = 0.15, 0.06, 0.072   # pasted or blended, and judged; its features; an image of 128 px through a step
DETECTED = 0.071                             # an image of 224 px through a step of YOLO11n
PERTURBED, DENOISED = 6.0, 5.4               # a tile perturbed; a step of the diffusion model that does so
LARGER = 1.4                                 # tiles
REAL = 120.0                                 # all of NEU-DET's train images looked at, those learned from in all turns
READ = 60.0                                  # datasets read, processes started


def pieces(shape: Shape) -> dict[str, float]:
    """Core minutes. What several arms build on stands apart."""
    tokens, lora = (8 * n * ADAPTING for n in shape.adapter)
    drawn = shape.denoising * 2 * PASS + CODED               # whatever the strength: all steps are run; guidance asks twice a step
    count, tenth, tiles = CLASSES * 10 * RATIO, CLASSES * TENTH, SPARE * shape.added
    classifier = shape.classifier * 32 * CLASSIFIED * (shape.side / 128) ** 2
    tail, few = (e * steps_of(n) * BATCH * DETECTED for e, n in ((shape.tail, TRAIN - RARE + LEFT), (shape.detection, tenth)))
    seconds = {
        "surface prior, for steel or for tiles": trained(shape, shape.prior),
        "adapters on all of NEU-DET: tokens": tokens, "- lora": lora, "- both": tokens + lora,
        "kid, an arm": CLASSES * shape.made * (drawn + SEEN) + REAL,
        "recognition, 10-real or 10-aug": classifier,
        "recognition, 10-paste": count * LAID + classifier,
        "recognition, 10-prior": tokens + lora + count * drawn + classifier,
        "- for each further picture for a real one": CLASSES * 10 * drawn,
        "recognition, 10-scratch": trained(shape, shape.scratch) + count * drawn + classifier,
        "tail, plain": tail, "tail, paste": tiles * LAID + tail,
        "tail, prior": LARGER * (tokens + lora + tiles * drawn) + tail,
        "tail, perturb": shape.denoiser * DENOISED + tiles * PERTURBED + tail,
        "detection, plain": few, "detection, paste": tenth * RATIO * LAID + few,
        "detection, prior": tokens + lora + tenth * RATIO * drawn + few,
    }
    return {name: (s + READ) / 60 for name, s in seconds.items()}


def trained(shape: Shape, steps: tuple[int, int]) -> float:
    return shape.batch * (steps[0] * CODING + steps[1] * LEARNING)


def estimated(shape: Shape) -> str:
    lines = [f"  {name:<44}{minutes:>6.0f}" for name, minutes in pieces(shape).items()]
    return "\n".join(["Core minutes of one seed on a CPU (--shape cpu), with what it builds on where that is not listed:", *lines])
