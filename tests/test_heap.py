"""What lives is swept over once a minute and not after each run of a page; what nobody holds goes all the same."""

import gc
import weakref

import pytest

from pages.components import heap


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_lives_is_not_swept_again_and_what_is_dead_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        knot = Knot()
        heap.once()
        assert gc.get_freeze_count() > 10_000 and not any(one is knot for one in gc.get_objects()), "Streamlit's sweep does not meet it"
        seen = weakref.ref(knot)
        del knot
        gc.collect()
        assert seen() is not None, "frozen"
        heap.once()
        assert seen() is None
    finally:
        gc.unfreeze()

