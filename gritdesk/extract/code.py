"""Source code: the text stays as it is, its definitions make sections: "Class > method".

Six languages are parsed, by the grammars that Textual highlights with. Of others a definition is known by its first
line at the left margin, in the spelling that most of them share; so it is, too, in a file that is too long to parse,
takes too long or is too broken. Comments, decorators and attributes right above a definition belong to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING

from gritdesk.extract.source_lines import Heading, outline
from gritdesk.records import Section

if TYPE_CHECKING:
    from tree_sitter import Node, Tree

_DEFINITION = re.compile(
    r"""^(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([a-z]+\))?|unsafe
        |open|sealed|data|declare|inline|partial|override|extern(?:\ "C")?)\ +)*
        (?:def|class|function\*?|func|fun|fn|struct|enum|interface|trait|impl(?:<[^>]*>)?|module|namespace|object
        |protocol|extension|actor|type|sub|macro_rules!|defmodule|union)\ +(?:\([^)]*\)\ *)?
        ([A-Za-z_$][\w$.]*(?:::[\w$]+)*)
        |^(?:[A-Za-z_][\w:<>,&*\ ]*[\ *&])?(?!(?:if|for|foreach|while|switch|catch|return|unless|elsif|else)\b)
        (~?[A-Za-z_][\w:~]*)\([^;{}()]*\)[\ \w]*\n?\{  # a function of C""",
    re.MULTILINE | re.VERBOSE,
)
_TABLE = re.compile(r"^\[{1,2}([^\]\n]+)\]{1,2}[ \t]*(?:[#;][^\n]*)?$", re.MULTILINE)
_CREATED = re.compile(
    r"""^CREATE\ +(?:OR\ +REPLACE\ +)?(?:(?:TEMP(?:ORARY)?|UNIQUE|MATERIALIZED|VIRTUAL)\ +)*(?:TABLE|VIEW|FUNCTION
        |PROCEDURE|TRIGGER|TYPE|INDEX|SCHEMA)\ +(?:IF\ +NOT\ +EXISTS\ +)?([\w."`\[\]]+)""",
    re.MULTILINE | re.VERBOSE | re.IGNORECASE,
)
_PATTERNS = {**dict.fromkeys((".toml", ".ini", ".cfg", ".conf"), _TABLE), ".sql": _CREATED}
_ABOVE = re.compile(r"[@#*]|//|--|/\*|\*/| \*|template *<|\[\w")
_ENDS = re.compile(r"[\s)}\];,]*(?:end\b[\s;]*)?")
"""What may follow a definition without being something else: what closes those around it."""

_LANGUAGES = {
    **dict.fromkeys((".py", ".pyi", ".pyw", "python"), "python"),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx", "node"), "javascript"),
    **dict.fromkeys((".sh", ".bash", ".zsh", ".ksh", "sh", "bash", "zsh"), "bash"),
    **{".java": "java", ".go": "go", ".rs": "rust"},
}
_QUERIES = {
    "python": """(class_definition name: (_) @name) @outer
        (function_definition name: (_) @name) @inner
        [(comment) (decorator)] @above""",
    "javascript": """(class_declaration name: (_) @name) @outer
        (function_declaration name: (_) @name) @inner
        (generator_function_declaration name: (_) @name) @inner
        (method_definition name: (_) @name) @inner
        (field_definition property: (_) @name value: [(arrow_function) (function_expression)]) @inner
        (variable_declarator name: (identifier) @name value: [(arrow_function) (function_expression)]) @inner
        (assignment_expression left: (_) @name right: [(arrow_function) (function_expression)]) @inner
        (pair key: (_) @name value: [(arrow_function) (function_expression)]) @inner
        [(comment) (decorator)] @above""",
    "java": """(class_declaration name: (_) @name) @outer
        (interface_declaration name: (_) @name) @outer
        (enum_declaration name: (_) @name) @outer
        (record_declaration name: (_) @name) @outer
        (annotation_type_declaration name: (_) @name) @outer
        (method_declaration name: (_) @name) @inner
        (constructor_declaration name: (_) @name) @inner
        (compact_constructor_declaration name: (_) @name) @inner
        [(line_comment) (block_comment)] @above""",
    "go": """(function_declaration name: (_) @name) @inner
        (method_declaration receiver: (parameter_list (parameter_declaration type: (_) @of)) name: (_) @name) @inner
        (type_declaration (type_spec name: (_) @name)) @inner
        (comment) @above""",
    "rust": """(impl_item type: (_) @name) @outer
        (trait_item name: (_) @name) @outer
        (mod_item name: (_) @name body: (_)) @outer
        (function_item name: (_) @name) @inner
        (struct_item name: (_) @name) @inner
        (enum_item name: (_) @name) @inner
        (union_item name: (_) @name) @inner
        (macro_definition name: (_) @name) @inner
        [(line_comment) (block_comment) (attribute_item)] @above""",
    "bash": "(function_definition name: (_) @name) @inner (comment) @above",
}
"""Outer definitions have others inside of them that count, inner ones have not."""
_MAX_PARSED_CHARS = 2_000_000
_MAX_PARSING_S = 2.0
"""Of processor time: a megabyte of Python takes half a second, of brackets that never close it would be minutes."""


@dataclass(frozen=True)
class _Definition:
    first_row: int
    """Row of the definition or of what stands above it and belongs to it; rows count from 0."""
    last_row: int
    name: tuple[str, ...]
    is_outer: bool


def sections(text: str, suffix: str = "") -> tuple[Section, ...]:
    """One section per definition, and others for what stands outside of all.

    Args:
        suffix: of the file's name, in lower case; without a known one the first line's `#!` says the language.
    """
    language = _LANGUAGES.get(suffix) or _LANGUAGES.get(_interpreter(text))
    tree = _parsed(text, language) if language and len(text) <= _MAX_PARSED_CHARS else None
    nested = _nested(text, _definitions(text, tree, language)) if language and tree else ()
    if tree and not tree.root_node.has_error:
        return nested
    # a grammar recovers from most errors; after some it knows no definition any more
    return max(nested, _at_the_margin(text, _PATTERNS.get(suffix, _DEFINITION)), key=len)


def _interpreter(text: str) -> str:
    match = re.match(r"#![ \t]*(?:\S*/)?([a-z]+)[\d.]*(?:[ \t]+(?:-S[ \t]+)?([a-z]+))?", text)
    return (match[2] if match[1] == "env" else match[1]) or "" if match else ""


# ---------------------------------------------------------------- parsed


def _parsed(text: str, language: str) -> Tree | None:
    from tree_sitter import Language, Parser

    source = text.encode("utf-8", "replace")
    until = time.process_time() + _MAX_PARSING_S
    try:
        parser = Parser(Language(import_module(f"tree_sitter_{language}").language()))
        return parser.parse(
            lambda at, _: source[at : at + 65536], progress_callback=lambda *_: time.process_time() > until
        )
    except (ImportError, ValueError):  # no such grammar here, or one of another version; or stopped
        return None


def _definitions(text: str, tree: Tree, language: str) -> Iterator[_Definition]:
    """The definitions in the order in which they begin, outer ones before those inside of them."""
    from tree_sitter import Query, QueryCursor

    grammar = tree.language
    source = text.encode("utf-8", "replace")
    indentations = [len(line) - len(line.lstrip()) for line in text.split("\n")]
    nodes = []
    above: dict[int, tuple[int, int]] = {}
    for _, found in QueryCursor(Query(grammar, _QUERIES[language])).matches(tree.root_node):
        if node := next(iter(found.get("above", ())), None):
            first, last = node.start_point, node.end_point
            if first.column == indentations[first.row]:
                above[last.row - (last.column == 0 and last.row > first.row)] = (first.row, first.column)
        else:
            ((kind, (node,)),) = [(kind, found[kind]) for kind in ("outer", "inner") if kind in found]
            nodes.append((node.start_point.row, -node.end_byte, kind == "outer", found))
    nodes.sort(key=lambda each: each[:2])
    for row, _, is_outer, found in nodes:
        node = found["outer" if is_outer else "inner"][0]
        while row - 1 in above and above[row - 1][1] == indentations[row]:
            row = above[row - 1][0]
        name = tuple(_name(source, each) for key in ("of", "name") for each in found.get(key, ()))
        end = node.end_point
        yield _Definition(row, end.row - (end.column == 0 and end.row > row), name, is_outer)


def _name(source: bytes, node: Node) -> str:
    spelled = source[node.start_byte : node.end_byte].decode("utf-8", "replace")  # node.text reads the source anew
    return " ".join(spelled.split()).lstrip("*& ").strip("\"'")[:100]


def _nested(text: str, definitions: Iterator[_Definition]) -> tuple[Section, ...]:
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    found = [Section(0, 1)]
    open_: list[_Definition] = []

    def begin(row: int) -> None:
        if found[-1].start == starts[row]:
            found.pop()
        found.append(Section(starts[row], row + 1, tuple(part for each in open_ for part in each.name)))

    def close(row: int) -> None:
        """End what ends before a row; what stands between belongs to the definitions around."""
        while open_ and open_[-1].last_row < row:
            after = open_.pop().last_row + 1
            until = min(row, open_[-1].last_row + 1) if open_ else row
            if not _ENDS.fullmatch(text, starts[after], starts[until]):
                begin(after)

    for each in definitions:
        close(each.first_row)
        is_inside = bool(open_) and not open_[-1].is_outer
        if is_inside or (each.first_row < found[-1].line and found[-1].heading):  # or several in a line
            continue
        open_.append(each)
        begin(each.first_row)
    close(len(lines))
    return tuple(found)


# ---------------------------------------------------------------- not parsed


def _at_the_margin(text: str, pattern: re.Pattern[str]) -> tuple[Section, ...]:
    return outline(_headings(text, pattern))


def _headings(text: str, pattern: re.Pattern[str]) -> Iterator[Heading]:
    floor, line, counted = 0, 1, 0
    for match in pattern.finditer(text):
        start = _with_lines_above(text, match.start(), floor)
        line, counted = line + text.count("\n", counted, start), start
        yield Heading(start, line, 1, match[match.lastindex or 0].strip('"`[]'))
        floor = match.end()


def _with_lines_above(text: str, start: int, floor: int) -> int:
    while start > floor:
        above = text.rfind("\n", 0, start - 1) + 1
        if above < floor or not _ABOVE.match(text, above):
            break
        start = above
    return start
