"""Every failure a person can meet, as one small tree.

    GritDeskError            caught once, at the front end: one line on stderr, or one notification
    ├── ConfigError          config.toml or an option is wrong
    ├── QueryError           what was asked cannot be looked for
    ├── ExtractError         a file cannot be turned into text
    │   └── ReaderClosed     gritdesk is closing; the file is not to blame
    ├── ModelError           a GGUF cannot be loaded or used
    │   ├── RequestRefused   the engine cannot serve one request; others are not affected
    │   │   └── ContextOverflow  a text does not fit the model's context
    │   └── ServerUnreachable    the server that embeds does not answer now
    ├── AppEnded             the terminal app met an error that it could not survive
    └── StoreError           the index cannot be opened, read or written
        ├── StoreBusy        another process is indexing
        └── FingerprintMismatch  the index was made by another model or other settings

A message says what was expected, what was found, where, and what to do next, in one line.
Exceptions of libraries are translated at their door, with `raise ... from`.
"""

CHOOSE_MODEL = (
    "choose another model by `gritdesk models use NAME` (`gritdesk models` lists them, `default` is gritdesk's own)"
)
"""What to do about a model file that cannot be used."""


class GritDeskError(Exception):
    """Root of the tree; `str(error)` is one line meant for a person."""


class ConfigError(GritDeskError):
    """The configuration or an option cannot be used."""


class QueryError(GritDeskError):
    """What a person asked to be found cannot be looked for, such as files after a date that is none."""


class ExtractError(GritDeskError):
    """A file cannot be turned into text; the message is the reason shown in the library."""


class ReaderClosed(ExtractError):
    """The reader was closed before or while it read a file, which is not to blame."""


class ModelError(GritDeskError):
    """A model file or the engine that runs it failed."""


class RequestRefused(ModelError):
    """The engine cannot serve this one request, of whose text it died or which has no embedding; it goes on."""


class ContextOverflow(RequestRefused):
    """A prompt or text is longer than the context it must fit."""


class ServerUnreachable(ModelError):
    """The server that embeds cannot be reached, or is too busy; it may answer later."""


class StoreError(GritDeskError):
    """The index file cannot be opened, read or written."""


class StoreBusy(StoreError):
    """Another process holds the indexing lock of this index."""


class FingerprintMismatch(StoreError):
    """The index holds embeddings of another model, format or chunking; vector spaces are never mixed."""


class AppEnded(GritDeskError):
    """An error that the terminal app could not survive; the terminal is restored by then."""
