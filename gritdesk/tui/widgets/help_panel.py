"""F1: what has the focus, what the screen is for, and every key that works here."""

from __future__ import annotations

from textual import widgets
from textual.widget import Widget

from gritdesk.tui.keymap import keymap_of


class HelpPanel(widgets.HelpPanel):
    """Textual's panel, with the help of the screen under that of the widget, and with the keys as they are now."""

    def update_help(self, focused_widget: Widget | None) -> None:
        if not self.screen.is_active or not self.is_mounted:
            return
        nodes = [*focused_widget.ancestors_with_self] if focused_widget else [self.screen]
        told = [node.HELP for node in nodes if isinstance(node, Widget) and node.HELP]
        self.set_class(bool(told), "-show-help")
        self.query_one(widgets.Markdown).update(keymap_of(self).told("\n\n".join(told)))
