"""An error in a handler costs what that handler was to do, and not the app.

Textual ends an app whose handler raises. Here the app, its screens and its widgets say what went wrong and go on; so
do their timers and whatever they put off. A timer that fails again and again rests, and errors without end do end the
app (GritDeskApp.survive). An error elsewhere, as where a widget is drawn, would come with every frame: it ends the app,
with the terminal restored (GritDeskApp._fatal_error).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from textual.message import Message
from textual.message_pump import MessagePump
from textual.timer import Timer
from textual.worker import Worker, WorkerState

if TYPE_CHECKING:
    from gritdesk.tui.app import GritDeskApp


_MOST_FAILURES = 3
"""So many times in a row a timer may fail; it rests from then on."""

_Callback = Callable[..., Any]


class Guarded(MessagePump):
    """Mixed into the app, its screens and its widgets, before what they are of."""

    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)
        except Exception as error:  # a handler's edge
            cast("GritDeskApp", self.app).survive(error)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        error = message.worker.error
        if message.state is WorkerState.ERROR and isinstance(error, Exception):
            cast("GritDeskApp", self.app).survive(error)

    def set_timer(self, delay: float, callback: _Callback | None = None, **options: Any) -> Timer:
        timer = super().set_timer(delay, self._guard(callback), **options)
        # Textual 8.2.8 takes the time twice as a timer begins, and where its thread is held up in between for longer
        # than the delay it skips the only tick there is
        timer._skip = False
        return timer

    def set_interval(self, interval: float, callback: _Callback | None = None, **options: Any) -> Timer:
        return super().set_interval(interval, self._guard(callback), **options)

    def call_after_refresh(self, callback: _Callback, *args: Any, **kwargs: Any) -> bool:
        return super().call_after_refresh(self._guard(partial(callback, *args, **kwargs)))

    def call_next(self, callback: _Callback, *args: Any, **kwargs: Any) -> None:
        super().call_next(self._guard(partial(callback, *args, **kwargs)))

    def _guard(self, callback: Any) -> Any:
        """A callback that survives its errors; one of Textual's own, that draws, stays as it is."""
        if callback is None or _is_of_textual(callback):
            return callback
        num_failures = 0

        async def guarded() -> None:
            nonlocal num_failures
            if num_failures >= _MOST_FAILURES:
                return
            try:
                outcome = callback()
                if isawaitable(outcome):
                    await outcome
                num_failures = 0
            except Exception as error:  # a handler's edge
                num_failures += 1
                cast("GritDeskApp", self.app).survive(error)

        return guarded


def _is_of_textual(callback: Any) -> bool:
    while isinstance(callback, partial):
        callback = callback.func
    return str(getattr(callback, "__module__", "")).startswith("textual.")
