"""Pictures that are not here though nothing is wrong: retention let them go, or they are another plant's. Said where one is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import NotFoundError
from backend.store import queries
from backend.store.database import Database

ELSEWHERE = "Pictures of {} are kept there. What was found in them is here."
SENTENCE = "This picture was let go by retention on {:%-d %b %Y}. What was found in it stays and counts as before."


@contextmanager
def explained(db: Database, inspection_id: int | None) -> Iterator[None]:
    """Around whatever loads the picture of an inspection; without an inspection nothing is added."""
    try:
        yield
    except NotFoundError as error:
        if inspection_id is not None and (plant := queries.kept_by(db, inspection_id)):
            raise NotFoundError(ELSEWHERE.format(plant)) from error
        at = queries.let_go(db, inspection_id) if inspection_id is not None else None
        if at is None:
            raise
        raise NotFoundError(SENTENCE.format(at)) from error
