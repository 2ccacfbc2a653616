"""A list of rows whose highlight may be reversed, for terminals without colour."""

from __future__ import annotations

from dataclasses import replace

from textual.style import Style
from textual.widgets import OptionList

from gritdesk.tui.guarding import Guarded


class Rows(Guarded, OptionList):
    def get_visual_style(self, *component_classes: str, partial: bool = False) -> Style:
        """Textual 8.2.8 takes every text style from the stylesheet but `reverse`."""
        style = super().get_visual_style(*component_classes, partial=partial)
        is_reversed = any(self.get_component_styles(each).text_style.reverse for each in component_classes)
        return replace(style, reverse=True) if is_reversed else style
