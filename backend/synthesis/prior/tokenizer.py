"""A tokenizer for a text encoder of our own: byte-level pair encoding of the captions and of words that people use of surfaces.

Sennrich et al. 2016 (arXiv 1508.07909), in the form of CLIP: bytes, bytes that end a word, merges, then start and end. Whatever is
typed can be read; a known word is one token. Knows nothing of networks.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
ENDS = "</w>"
MOST = 6_000             # tokens
LENGTH = 77              # of a prompt, as in every Stable Diffusion

# What may be asked for and need not stand in a caption.
WORDS = """
a an and as at by for from in into like near no not of off on onto or other out over some the this to under very with without
surface texture background plate sheet strip slab coil tile panel film foil board cloth part piece material finish coating paint
metal steel iron aluminium aluminum copper brass zinc tin titanium alloy ferrite magnet magnetic silicon wafer glass ceramic concrete
stone granite marble asphalt brick wood timber veneer paper cardboard leather fabric textile carpet rubber plastic polymer foam
hot cold rolled brushed ground polished milled turned cast forged welded galvanised painted coated printed woven knitted pressed etched
defect defective flaw fault damage good normal clean perfect free scratch scratches crack cracks crazing pit pits pitted pitting hole
holes blowhole void pore pores porosity stain stains spot spots patch patches inclusion inclusions scale dent dents bump blister
blisters bubble bubbles break broken chip chipped fray frayed tear torn cut fold folded crease wrinkle corrosion corroded rust rusty
oxide oxidation burr burn burnt weld seam line lines stripe stripes streak mark marks roughness rough uneven smooth dust dirt oil water
silk waist rolling punching crescent gap welding edge edges corner foreign contamination peeling delamination discoloration colour color
missing misplaced thread hair fibre
black white grey gray dark bright light red green blue brown yellow orange
small large big tiny long short thin thick wide narrow deep shallow round straight curved horizontal vertical diagonal single many few
one two three several strong weak faint clear visible fine coarse sharp soft photo picture image close up macro camera industrial inspection
"""


def train(captions: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Learn the merges, write vocab.json and merges.txt (and what else transformers wants) into `folder`, and read it from there."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=ENDS))
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator([*sorted(captions), WORDS.lower()], trainers.BpeTrainer(
        vocab_size=MOST, min_frequency=1, initial_alphabet=alphabet, end_of_word_suffix=ENDS, show_progress=False))
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(byte + ENDS for byte in alphabet), *dict.fromkeys("".join(pair) for pair in merges), START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("".join(["#version: 0.2\n", *(f"{a} {b}\n" for a, b in merges)]))
    made = CLIPTokenizer(vocabulary, merges, model_max_length=LENGTH)      # type: ignore[arg-type]     # it wants pairs, whatever it says
    made.save_pretrained(str(folder))
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)  # nosec B615 # a folder of ours
