"""What a dataset and a class are called in a prompt, where no words have been learned for them.

Captions of training and prompts of drawing come from here, so that both say the same. Knows nothing of tokens or networks.
"""

import re

WORDS = 6                # of a name, at most: a text encoder reads 77 tokens in all


def spoken(name: str) -> str:
    """A name as words: 'rolled-in_scale' is 'rolled in scale'. Odd characters are dropped, words after the sixth too."""
    parted = re.sub(r"[_\-\s]+", " ", name.lower())
    return " ".join(re.sub(r"[^\w ]", "", parted).split()[:WORDS])


def called(dataset: str) -> str:
    """A dataset's name without what stands in brackets, so that all parts of one material, 'rolled steel (10 of each)', have equal
    prompts."""
    return re.sub(r"\s*\([^()]*\)", "", dataset)


def caption(dataset: str, class_name: str | None) -> str:
    """'neu det surface with rolled in scale'; no class: '… surface without defect'."""
    defect = spoken(class_name) if class_name else ""
    return f"{spoken(called(dataset))} surface {f'with {defect}' if defect else 'without defect'}".strip()
