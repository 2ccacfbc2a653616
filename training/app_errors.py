"""The app's errors become the ValueErrors that training/ raises, here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gritdesk.errors import GritDeskError


@contextmanager
def app_errors() -> Iterator[None]:
    """Around a call into the app. Raises: ValueError with the app's own line."""
    try:
        yield
    except GritDeskError as error:
        raise ValueError(str(error)) from error
