"""The program's start, as `gritdesk` and as `python -m gritdesk`."""

from gritdesk.cli import main

if __name__ == "__main__":
    main()
