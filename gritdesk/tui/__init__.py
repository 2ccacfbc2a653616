"""The terminal app: screens over one Desk, and no logic of its own. `app.run` opens it.

This module imports nothing, so that `gritdesk --help` pays nothing for Textual.
"""
