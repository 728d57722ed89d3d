"""New words for the classes of a dataset (textual inversion, Gal et al. 2022, arXiv 2208.01618): the first space a prior is moved in.

Stands behind `adapt`. A class gets some placeholder words whose embeddings, and nothing else, are learned. Knows nothing of pictures,
steps or low-rank adapters.
"""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from backend.errors import InputError
from backend.synthesis.prior.words import called, caption, spoken

FILE = "tokens.safetensors"
SPREAD = 0.1              # of the embeddings' deviation: words that start from the same one must part. Our choice
NAMELESS = "defect"       # what a class is called whose name has no letters
LONGEST = 40              # characters of a name in a placeholder


def placeholders(dataset: str, classes: list[str], vectors: int) -> dict[str, list[str]]:
    """Words that no text holds, '<neu-det/scratches-1>', class by class; classes that would be spelled alike are numbered."""
    found: dict[str, list[str]] = {}
    taken = set[str]()
    for number, class_name in enumerate(classes):
        stem = _plain(class_name)
        stem = f"{stem}.{number}" if stem in taken else stem
        taken.add(stem)
        found[class_name] = [f"<{_plain(called(dataset))}/{stem}-{i}>" for i in range(vectors)]
    return found


def _plain(name: str) -> str:
    """Lower case, or the tokenizer would not know its own words again."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST] or "x"


def prompt(dataset: str, class_name: str, words: list[str]) -> str:
    """The caption, the new words where the class's name stood: learning starts from what the prior makes of plain words."""
    said = spoken(class_name) or NAMELESS
    return caption(dataset, said).removesuffix(said) + " ".join(words)


class Learned(nn.Module):
    """An embedding whose rows from `first` on are learned; the others are frozen where they are, not copied at each step."""

    def __init__(self, table: nn.Embedding, first: int, rows: Tensor) -> None:
        super().__init__()
        self.first = first
        self.table = table.requires_grad_(False)
        self.rows = nn.Parameter(rows.float())

    @property
    def weight(self) -> Tensor:
        """Of the frozen rows: whoever asks for an embedding's dtype or device looks here."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        known = self.table(ids.clamp(max=self.first - 1))                         # (B, L, D)
        new = F.embedding((ids - self.first).clamp(min=0), self.rows)             # (B, L, D)
        return torch.where((ids >= self.first)[..., None], new.to(known.dtype), known)


def begin(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, words: dict[str, list[str]], seed: int) -> Learned:
    """Teach tokenizer and encoder the words, each class's starting from its plain name. Only `Learned.rows` learn."""
    encoder.requires_grad_(False)
    table = encoder.get_input_embeddings()
    starts = torch.cat([_start(table.weight, tokenizer, name, len(some)) for name, some in words.items()])
    deviation = float(table.weight.float().std(0).mean())
    noise = torch.randn(starts.shape, generator=torch.Generator().manual_seed(seed))
    first = _add(tokenizer, words)
    learned = Learned(table, first, starts + SPREAD * deviation * noise.to(starts.device))
    encoder.set_input_embeddings(learned)
    return learned


def _start(weight: Tensor, tokenizer: CLIPTokenizer, class_name: str, vectors: int) -> Tensor:
    """Embeddings of the name's own words, in turn: (vectors, D)."""
    ids = tokenizer(spoken(class_name) or NAMELESS, add_special_tokens=False).input_ids
    return weight[[ids[i % len(ids)] for i in range(vectors)]].detach().float()


def _add(tokenizer: CLIPTokenizer, words: dict[str, list[str]]) -> int:
    """The id of the first new word; the others follow it."""
    new = [word for some in words.values() for word in some]
    first = len(tokenizer)
    added = tokenizer.add_tokens(new)
    assert added == len(new) and tokenizer.convert_tokens_to_ids(new[-1:]) == [first + len(new) - 1], "placeholders are new words"
    return first


def finish(encoder: CLIPTextModel, learned: Learned) -> None:
    """A plain embedding again, with the learned rows in it."""
    _put(encoder, learned.table, learned.first, learned.rows.detach())


def _put(encoder: CLIPTextModel, table: nn.Embedding, first: int, rows: Tensor) -> None:
    """Some tables are longer than their tokenizer's vocabulary: what lies behind the new rows stays."""
    old = table.weight.detach()
    weight = torch.cat([old[:first], rows.to(old), old[first + len(rows):]])
    encoder.set_input_embeddings(nn.Embedding.from_pretrained(weight))
    encoder.config.vocab_size = len(weight)


def save(learned: Learned, words: dict[str, list[str]], folder: Path, base: str) -> None:
    """`tokens.safetensors`: class → (vectors, D). `base`: hash of the weights that it was learned on, which the file says too."""
    pieces = torch.split(learned.rows.detach().float().cpu(), [len(some) for some in words.values()])
    save_file({name: piece.contiguous() for name, piece in zip(words, pieces, strict=True)}, folder / FILE,
              metadata={"base": base})


def apply(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, words: dict[str, list[str]], folder: Path) -> None:
    """Teach another copy of the same prior the words that were learned. Raises InputError."""
    table = encoder.get_input_embeddings()
    try:
        state = load_file(folder / FILE)
        rows = torch.cat([state[name] for name in words])
    except (OSError, SafetensorError, KeyError) as problem:
        raise InputError(f"The adapter's file {FILE} is missing or damaged. Adapt the prior again.") from problem
    if rows.shape != (sum(map(len, words.values())), table.weight.shape[1]):
        raise InputError(f"The adapter's file {FILE} was not made for this prior: its words have {rows.shape[1]} numbers.")
    _put(encoder, table, _add(tokenizer, words), rows)
