"""An error in a handler costs what that handler was to do, and not the app.

Textual ends an app whose handler raises. Here the app and its screens, where all handlers are that call the Desk, say
what went wrong and go on. An error elsewhere, as where a widget is drawn, would come with every frame: it ends the app,
with the terminal restored (GritDeskApp._fatal_error).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.message import Message
from textual.message_pump import MessagePump
from textual.worker import Worker, WorkerState

if TYPE_CHECKING:
    from gritdesk.tui.app import GritDeskApp


class Guarded(MessagePump):
    """Mixed into the app and its screens, before what they are of."""

    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)
        except Exception as error:  # a handler's edge
            cast("GritDeskApp", self.app).survive(error)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        error = message.worker.error
        if message.state is WorkerState.ERROR and isinstance(error, Exception):
            cast("GritDeskApp", self.app).survive(error)
