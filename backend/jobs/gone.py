"""Pictures that retention let go: said so where one is asked for, since nothing is wrong then. What was found in it stays."""

from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import NotFoundError
from backend.store import queries
from backend.store.database import Database

SENTENCE = "This picture was let go by retention on {:%-d %b %Y}. What was found in it stays and counts as before."


@contextmanager
def explained(db: Database, inspection_id: int | None) -> Iterator[None]:
    """Around whatever loads the picture of an inspection; without an inspection nothing is added."""
    try:
        yield
    except NotFoundError as error:
        at = queries.let_go(db, inspection_id) if inspection_id is not None else None
        if at is None:
            raise
        raise NotFoundError(SENTENCE.format(at)) from error
