"""The program's start, as `gritdesk` and as `python -m gritdesk`."""

from __future__ import annotations

from gritdesk.starting import ended_by_interrupt


def main() -> None:
    with ended_by_interrupt():
        from gritdesk.cli import main as run_command
    run_command()


if __name__ == "__main__":
    main()
