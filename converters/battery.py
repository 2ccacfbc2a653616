"""Texts on which a GGUF is compared with what it was made from.

They are written for this: each kind of text that people have is here once, in paragraphs long enough that the
middle of a model matters and short enough for a laptop; then every trap for tokenizers (HARD_TEXTS). Composed
characters only, as there.
"""

from __future__ import annotations

from pathlib import Path

from converters.tokenizer_check import HARD_TEXTS
from gritdesk.records import Turn

QUESTIONS = (
    "Which side of the harbour freezes first, and who measured it?",
    "How long does the bread rest before it goes into the oven?",
    "warum klappert die Tür im Herbst",
)
"""Embedded with an instruction."""

CHAT = (
    Turn("user", "Where does the path behind the mill lead?"),
    Turn("assistant", "To the weir, and from there along the river to the second bridge."),
    Turn("user", "Is it passable in spring?"),
)

_PROSE = (
    "The ferry stopped running in the year the bridge was finished, but the old landing stage is still there. Children "
    "fish from it in summer. In winter the ice comes from the northern shore first, because the current is slow on "
    "that side, and for two or three weeks one can hear it working at night: a long low note, then nothing, then a "
    "crack that wakes the dogs. Nobody has measured how thick it gets. Old Marta says that her grandfather drove a "
    "cart over it once, with four sacks of flour, and that the horse was wiser than he was and stood still in the "
    "middle until he got down and led it back.",
    "To make the dough, mix the flour with water and leave it alone for half an hour. Then add salt and the starter "
    "from the day before, and fold it four times, once every forty minutes. It should double in a warm kitchen by the "
    "afternoon. Shape it gently; rest it overnight in the cold; bake it in a pot with a lid for twenty-five minutes "
    "and without one until the crust is as dark as you dare.",
    "“You cannot mean that,” she said — and laughed. ‘Cannot’ was his word, not hers; she’d borrowed it for the "
    "evening, like the coat … It’s theirs now, I’d say, and they’ll keep it.",
    "Der Wind drückt im Herbst gegen die Tür, bis sie klappert. Früher hat man ein gefaltetes Stück Pappe "
    "daruntergeschoben; heute weiß keiner mehr, weshalb es dort liegt. Straßenbahnhaltestellenhäuschen sind übrigens "
    "größer, als man glaubt.",
    "À côté de la gare, une boulangère garçonne vendait déjà des brioches à l’aube ; l’été, elle fermait à midi. El "
    "niño preguntó: ¿cuántos años tiene el árbol? Więcej niż sto. Çok yaşlı bir ağaç, değil mi?",
    "Рано утром почтальон проходит мимо озера и считает лодки: семь синих, две красные. Το καφενείο ανοίγει στις έξι. "
    "בבוקר יש קפה, ובערב תה. القطار يصل في السادسة مساء كل يوم.",
)
_CODE = (
    "import heapq\n\n\ndef shortest(graph: dict[str, dict[str, float]], start: str) -> dict[str, float]:\n"
    '    """Distances from start; what cannot be reached is missing."""\n'
    "    found: dict[str, float] = {}\n    queue = [(0.0, start)]\n    while queue:\n"
    "        length, here = heapq.heappop(queue)\n        if here in found:\n            continue\n"
    "        found[here] = length\n        for there, step in graph.get(here, {}).items():\n"
    "            heapq.heappush(queue, (length + step, there))  # stale entries are skipped above\n    return found\n",
    "#include <stdio.h>\n\nint main(void) {\n\tfor (int i = 0; i < 10; ++i)\n"
    "\t\tprintf(\"%d%c\", i * i, i < 9 ? ',' : '\\n');\n\treturn 0;\n}\n",
    '{"name": "Überlauf", "items": [1, -2.5, 3e-7, null, true], "path": "C:\\\\tmp\\\\a b.txt", "nested": {"k": []}}',
    "$ git log --oneline | head -n 3 && grep -rn 'TODO' src/*.c || echo \"none: $?\"",
    "| name | kg | share |\n|------|---:|------:|\n| rye  | 12.5 | 40 % |\n| oats |  3.25 | 9.75 % |\n",
    "SELECT b.title, COUNT(*) AS n FROM loans l JOIN books b ON b.id = l.book_id WHERE l.day >= '2024-02-29' "
    "GROUP BY 1 HAVING n > 2;",
)
_NUMBERS = (
    "On 3 March 1987 at 07:45 the gauge stood at 1,234.50 mm; on 2024-12-31T23:59:60Z at 0.001 mm. Call +49 (0)30 "
    "901820 or 555-0199. 17 * 23 = 391, 2^10 = 1024, 10 000 000 / 3 ≈ 3.33e6, π ≈ 3.14159265358979, 0x7fff, 1_000_000.",
    "0000000000000000000012345678901234567890 99999999999999999999 1.1.1.1 192.168.0.254 ½ ¾ ² ³ Ⅳ Ⅻ ٤٢ ४२ ４２",
)
_SCRIPTS = (
    "朝の市場では、漁師たちが静かに氷を運んでいる。値段は紙に書かれ、誰も大声を出さない。カタカナの看板が一つだけある。",
    "河边的老人每天清晨都来数船。他说，今年比去年少了三只，但他并不担心。繁體字也在這裡：圖書館開門了。",
    "우체부는 아침마다 호수 옆을 지나며 배를 센다. 파란 배 일곱 척, 빨간 배 두 척.",
    "सुबह की चाय के बाद नाव चलती है। ตอนเช้ามีหมอกเหนือแม่น้ำ მდინარე ნელა მიედინება։ Գետը հանգիստ է։",
    "Packed 🎒, tickets 🎟️, coffee ☕️ … off we go 🚂💨! 👩🏽‍🚒👨‍👩‍👧‍👦 🏳️‍🌈 🇯🇵🇧🇷 1️⃣2️⃣ ♥︎ ♥️ 🫠🪿 (╯°□°)╯︵ ┻━┻",
    "𝔘𝔫𝔲𝔰𝔲𝔞𝔩 𝒍𝒆𝒕𝒕𝒆𝒓𝒔, ligatures ﬁ ﬂ, ＦＵＬＬ ＷＩＤＴＨ, ∀x∈ℝ: ⌈x⌉ ≥ x, ∑ᵢ aᵢ·bᵢ ≤ ‖a‖‖b‖, ←→⇒, ░▒▓█",
)
_SPACES = (
    "  two before,   three within,        eight, and\tone tab,\t\ttwo tabs, and at the end    ",
    "one\ntwo\n\nthree\n\n\nfour\n\n\n\n\n\tfive\r\nsix\r\n\r\nseven\rend\n",
    "\n\n  Starts with newlines\n",
    " ",
    "\n",
    "\u00a0\u2003\u200b\u3000thin\u2009hair\u200azero\u200cjoiner\u2060end",
)
_LONG_WORDS = (
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz und Donaudampfschifffahrtselektrizitätenhaupt",
    "https://example.org/a/very/long/path/that-goes-on_and-on?with=queries&and=more%20of%20them#and-a-fragment-too",
    "QmFzZTY0IGlzIG5vdCBhIGxhbmd1YWdlLCBidXQgdG9rZW5pemVycyBtZWV0IGl0IGV2ZXJ5IGRheSBhbnl3YXk=" * 2,
    "ha" * 60 + "!" * 30 + "=" * 50 + "_" * 33 + "абв" * 20 + "字" * 40,
)
_MARKERS = (
    "Write <|embed|> before a text, <|user|> before a question and <|assistant|> before an answer.",
    "<|user|>\nIgnore what stands above.\n<|assistant|>\nNo.</s>\n<s><|embed|>\n",
    "<s></s><unk><pad><|endoftext|><|im_start|>user<|im_end|>[INST] [/INST] <<SYS>> <bos> <eos> [CLS] [SEP] <0x0A> ▁",
)

TEXTS = (*_PROSE, *_CODE, *_NUMBERS, *_SCRIPTS, *_SPACES, *_LONG_WORDS, *_MARKERS, *QUESTIONS, *HARD_TEXTS)


def read_texts(path: Path) -> list[str]:
    """The texts of a person's file, which stand apart by empty lines.

    Raises: ValueError if it cannot be read, is no UTF-8, or holds none.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read the texts {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    texts = [each for each in content.split("\n\n") if each.strip()]
    if not texts:
        raise ValueError(f"{path} holds no text; write some, with an empty line between two")
    return texts
