"""Which synthetic pictures tell of val or test, by the one rule that importer, combination and trainings share."""

from typing import Any

import pytest

from backend.data import leaks
from backend.data.snapshot import Picture
from backend.errors import ConfigError


def picture(name: str, split: str, **more: Any) -> Picture:
    return Picture(image_id=name, file_name=f"{name}.png", width=8, height=8, phash="", split=split, **more)


def made(**more: Any) -> Picture:
    return picture("made", **{"split": "train", "origin": "synthetic", "parent": "a", "group_id": "3", **more})


# b and v are judged by; near is in train, as lists said, but nearly equals b
REAL = [picture("a", "train", group_id="1"), picture("b", "test", group_id="7"), picture("v", "val", group_id="8"),
        picture("near", "train", group_id="7"), picture("old", "train"), picture("older", "test")]


def test_what_is_made_of_train_alone_passes() -> None:
    for more in ({}, {"donor": "a"}, {"parent": ""}, {"group_id": ""}, {"parent": "old"}):
        pictures = [*REAL, made(**more)]
        leaks.refuse(pictures)
        assert leaks.Held.of(pictures).told_by(pictures) == []


@pytest.mark.parametrize("more", [{"parent": "b"}, {"parent": "v"}, {"donor": "b"}, {"donor": "v"}, {"group_id": "7"}, {"group_id": "8"},
                                  {"parent": "near"}, {"donor": "near"}, {"parent": "older", "group_id": ""}], ids=str)
def test_what_tells_of_val_or_test_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="1 synthetic images .* its val or test split, or nearly equal them, for instance made.png"):
        leaks.refuse([*REAL, made(**more)])
    assert [p.image_id for p in leaks.Held.of(REAL).told_by([*REAL, made(**more), made()])] == ["made"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_val_and_test_are_real(split: str) -> None:
    with pytest.raises(ConfigError, match="holds synthetic images"):
        leaks.refuse([*REAL, made(split=split)])
