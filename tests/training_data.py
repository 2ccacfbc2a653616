"""A data folder in the forms the trainer reads, small enough to learn by heart."""

from __future__ import annotations

import json
from pathlib import Path


def write_data(folder: Path, num_rows: int = 12) -> Path:
    """A data folder of the real form, small enough to learn by heart."""
    animals = ["otter", "heron", "badger", "lynx", "stoat", "crane", "newt", "vole", "hare", "kite", "wren", "toad"]
    pairs = [
        {"query": ["Find the answer", f"Where does the {name} live?"], "pos": [["", f"The {name} lives by the river."]]}
        | ({"neg": [["", f"The {name} sleeps at noon."]]} if number % 2 else {"neg": []})
        for number, name in enumerate(animals[:num_rows])
    ]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Say {name}"},
                {"role": "assistant", "content": f"{name} {name}"},
                {"role": "user", "content": "Again"},
                {"role": "assistant", "content": name},
            ]
        }
        for name in animals[:num_rows]
    ]
    texts = [{"text": f"Once a {name} met another {name} at the water."} for name in animals[:num_rows]]
    for kind, rows in (("pairs", pairs), ("chat", chats), ("text", texts)):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "animals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_grounded(folder: Path) -> Path:
    """A data folder with one chat file whose questions bring numbered passages."""
    names = ["otter", "heron", "badger", "lynx"]
    chats = []
    for number, name in enumerate(names):
        passages = f"[1] The {names[number - 1]} is at the mill.\n\n[2] The {name} sleeps by the river."
        asked = {"role": "user", "content": f"Documents:\n{passages}\n\nQuestion: Who sleeps?"}
        chats.append({"messages": [asked, {"role": "assistant", "content": f"{name} [2]."}]})
    (folder / "chat").mkdir(parents=True)
    (folder / "chat" / "grounded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    return folder
