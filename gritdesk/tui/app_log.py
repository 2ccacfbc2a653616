"""Where the app writes what went wrong: `logs/app.log` at home, with the traceback that no person wants on a screen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

_MAX_BYTES = 1_000_000


class _AppLog(RotatingFileHandler):
    """Begun with the first line. Where nothing can be written, nothing is: what is said on the screen must do."""

    def _open(self):  # type: ignore[no-untyped-def]
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def app_log(path: Path) -> Iterator[None]:
    """Have warnings and errors of all libraries written to a file, and what ends a thread."""
    handler = _AppLog(path, maxBytes=_MAX_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s %(levelname)s: %(message)s"))
    before = threading.excepthook

    def on_thread_error(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            logging.getLogger(__name__).error("a thread ended", exc_info=ended.exc_value)

    logging.getLogger().addHandler(handler)
    threading.excepthook = on_thread_error
    try:
        yield
    finally:
        threading.excepthook = before
        logging.getLogger().removeHandler(handler)
        handler.close()


def where_logged() -> str:
    """The file that is written now, as words behind a problem; "" where none is."""
    found = next((each for each in logging.getLogger().handlers if isinstance(each, _AppLog)), None)
    return f", with the end of {found.baseFilename}" if found else ""
