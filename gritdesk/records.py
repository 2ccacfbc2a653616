"""What travels between the floors: frozen records, no behaviour beyond what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

EmbeddingInput = tuple[str, str]
"""(instruction, text) as the embedder takes it; the instruction is "" for passages."""

SearchMode = Literal["hybrid", "semantic", "keyword"]

Evidence = Literal["found", "thin", "none"]
"""Whether passages hold an answer, as gritdesk/evidence.py judges before one is written."""


_LEAST_MEASURED_S = 0.02
"""Of writing; a shorter time says nothing of its speed."""


@dataclass(frozen=True)
class Section:
    """A stretch of a document's text, from `start` to the next section's start."""

    start: int
    """Character offset in the document's text."""
    line: int
    """1-based line of the source at `start`; later lines follow by counting newlines."""
    heading: tuple[str, ...] = ()
    """Headings above this stretch, outermost first."""
    page: int | None = None
    """1-based page, for formats that have pages."""


@dataclass(frozen=True)
class Document:
    """One file's text."""

    path: Path
    text: str
    format: str
    """Short name of the reader's format: text, markdown, rst, org, tex, html, code, csv, email, notebook, rtf,
    subtitles, pdf, docx, xlsx, pptx, odt, ods, odp, epub."""
    sections: tuple[Section, ...] = (Section(0, 1),)
    """In order of `start`, the first at 0."""


@dataclass(frozen=True)
class Chunk:
    """A slice of a document that fits the embedding context: `document.text[char_start:char_end] == text`."""

    text: str
    char_start: int
    char_end: int
    line_start: int
    """1-based, in the source file."""
    line_end: int
    """1-based, inclusive."""
    heading: str = ""
    """The heading path, joined by " > "."""
    page: int | None = None
    num_tokens: int = 0


@dataclass(frozen=True)
class Scope:
    """Which files a search looks in: those that meet all conditions that are set."""

    folders: tuple[str, ...] = ()
    """In any of these folders (`in:`): a full path, which may be a file's, or a name or part of a path such as
    "notes/2024"."""
    types: tuple[str, ...] = ()
    """Of any of these kinds (`type:`): a suffix without its dot, in lower case, or a reader's format."""
    names: tuple[str, ...] = ()
    """With each of these in the file's name (`name:`), upper and lower case alike; * and ? stand for others."""
    after_ns: int | None = None
    """Modified at this time or later, in nanoseconds since 1970."""
    before_ns: int | None = None
    """Modified before this time."""
    not_folders: tuple[str, ...] = ()
    """In none of these folders (`-in:`)."""
    not_types: tuple[str, ...] = ()
    """Of none of these kinds (`-type:`)."""
    not_names: tuple[str, ...] = ()
    """With none of these in the file's name (`-name:`)."""
    within: tuple[str, ...] = ()
    """In any of these, too, whatever `folders` says: full paths of files and folders that a question is asked of."""


@dataclass(frozen=True)
class Query:
    """What a person typed, taken apart by querying.parse."""

    line: str
    """All of it, as typed."""
    text: str = ""
    """What is looked for, by words and by meaning: the words and "quoted parts" in their order, without the rest."""
    words: tuple[str, ...] = ()
    """The parts of the text that are not quoted."""
    phrases: tuple[str, ...] = ()
    """The quoted parts: every hit holds their words in this order."""
    literals: tuple[str, ...] = ()
    """Every hit holds these letter by letter (`lit:`), upper and lower case alike."""
    not_phrases: tuple[str, ...] = ()
    """No hit holds these words, each a word or several in this order (`-word`, `-"two words"`)."""
    not_literals: tuple[str, ...] = ()
    """No hit holds these letter by letter (`-lit:`)."""
    scope: Scope = Scope()
    """In which files to look."""
    restrictions: tuple[str, ...] = ()
    """What narrows the search, as typed: filters, what is left out, literal parts."""


@dataclass(frozen=True)
class Explanation:
    """How a hit's score came about: it is the sum of words, meaning, bonus and reading."""

    words: float
    """What the words added, weighted."""
    meaning: float
    """What the meaning added, weighted."""
    bonus: float
    """For a phrase of the query, or what is spelled as in it."""
    bm25: float | None
    """None when not found by words; 0 when letter by letter."""
    keyword_weight: float
    semantic_weight: float
    terms_found: tuple[str, ...]
    """Words and quoted parts of the query that the passage or its headings hold."""
    terms_missing: tuple[str, ...]
    restrictions: tuple[str, ...]
    """What narrowed the search, as typed."""
    reading: float | None = None
    """What a closer reading added to the score; None where there was none."""


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, and how well it fits."""

    chunk_id: int
    path: Path
    chunk: Chunk
    score: float
    """Larger is better; comparable within one search only."""
    distance: float | None = None
    """Cosine distance to the query, 0 (same) to 2; None when found by words alone."""
    keyword_rank: int | None = None
    """1-based rank among the hits by words; None when found by meaning alone."""
    semantic_rank: int | None = None
    """1-based rank among the hits by meaning; None when found by words alone."""
    explanation: Explanation | None = None
    """Only if it was asked for."""


@dataclass(frozen=True)
class Reranking:
    """How far a closer reading of hits has come."""

    hits: tuple[Hit, ...]
    """All of them, in the order so far."""
    num_read: int
    budget_s: float
    """Seconds after which the reading ends."""
    seconds: float
    """Since it began."""

    @property
    def is_complete(self) -> bool:
        return self.num_read == len(self.hits)


MOST_COUNTED = 100
"""Hits that a restriction removed are counted so far."""


@dataclass(frozen=True)
class Misses:
    """Why a search found nothing, and what it nearly found."""

    removed: tuple[tuple[str, int], ...]
    """Restrictions as typed, and how many passages there are without each, each text once; only those with any.

    Where there are none without any one of them: all of them as one, if there are some without all.
    """
    nearest: tuple[Hit, ...]
    """The best hits without any restriction."""


@dataclass(frozen=True)
class SimilarFiles:
    """Files nearest by meaning to one file."""

    hits: tuple[Hit, ...]
    """One a file, best first, by the chunk that is nearest."""
    copies: tuple[Path, ...]
    """Files of the very same content, which are not among the hits."""


@dataclass(frozen=True)
class MapPoint:
    """A document's place on a map, between 0 and 1 both ways."""

    path: Path
    x: float
    y: float
    cluster: int
    """Its place in Map.clusters."""


@dataclass(frozen=True)
class MapCluster:
    """Documents that lie together on a map."""

    words: tuple[str, ...]
    """What most of them and few others speak of, best first."""
    x: float
    y: float
    """Its middle."""
    num_documents: int


@dataclass(frozen=True)
class Map:
    """Documents placed by meaning: near is alike; far apart says little of how much they differ."""

    points: tuple[MapPoint, ...]
    clusters: tuple[MapCluster, ...]
    """Larger ones first."""


@dataclass(frozen=True)
class Citation:
    """[n] in an answer, resolved to its place."""

    n: int
    path: Path
    line_start: int
    line_end: int
    quote: str
    """Text of the cited passage, as it stands in the document."""
    page: int | None = None
    heading: str = ""


@dataclass(frozen=True)
class Place:
    """Where the words of a citation stand in its file now."""

    state: Literal["unchanged", "moved", "changed", "gone"]
    """changed: they do not stand there any more, and `quote` is the sentence nearest to them; gone: nothing does."""
    line_start: int
    line_end: int
    quote: str = ""
    """What stands there now; "" if it is gone."""
    page: int | None = None
    reason: str = ""
    """Of what is gone, in one line."""


@dataclass(frozen=True)
class Turn:
    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class Prompt:
    """All that is given to generation, and which passages it holds."""

    turns: tuple[Turn, ...]
    hits: tuple[Hit, ...] = ()
    """Passage [n] of the prompt is `hits[n - 1]`."""
    num_tokens: int = 0
    """Of the whole chat frame."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy and repeatable."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 0.95
    repeat_penalty: float = 1.1
    """1.0 is off; applied over the last 64 tokens."""
    seed: int = 0


UNSUPPORTED = "[?]"
"""Stands behind a sentence that no passage supports, where [n] would stand."""


@dataclass(frozen=True)
class SentenceSupport:
    """Whether a sentence of an answer stands in its passages."""

    start: int
    """Of the answer's text, as `end`; its [n] are part of it."""
    end: int
    is_supported: bool
    citation: Citation | None = None
    """The sentence of a passage that supports it; of one that nothing supports, the nearest."""
    cited: tuple[int, ...] = ()
    """The passages it cites itself: if they do not hold it and another does, `citation` names that one."""
    score: float | None = None
    """How near its meaning is to the citation's, beside all other sentences of the passages; None if that was not
    measured."""
    doubt: str = ""
    """Why nothing supports it, in a few words."""

    @property
    def suggested(self) -> int | None:
        """The passage to cite instead of those that it cites."""
        is_other = self.is_supported and self.citation is not None and self.cited
        return self.citation.n if is_other and self.citation and self.citation.n not in self.cited else None


@dataclass(frozen=True)
class Answer:
    question: str
    text: str
    grounded: bool
    """True when passages support a sentence of it; False also when it says that the documents hold none."""
    citations: tuple[Citation, ...] = ()
    """What the answer was taken from; none if it is not grounded."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: retrieve_s, first_piece_s, total_s; and num_pieces."""
    stopped: bool = False
    """True when the person stopped it; the text is what had come until then."""
    closest: Citation | None = None
    """Of an answer that is not grounded, the place to look instead."""
    sentences: tuple[SentenceSupport, ...] = ()
    """In the order of the text; none where no model was asked, or it refused."""
    dropped: tuple[int, ...] = ()
    """Numbers that it cited and that name no passage; they are not in the text."""
    searched_for: str = ""
    """What was searched for in place of the question, which left out what was said before; "" if nothing was."""
    evidence: Evidence = "found"
    """Whether there was any before it was written. thin: it may rest on little; none: nothing was read for it."""
    nearest: tuple[Citation, ...] = ()
    """Where there is no evidence, what came nearest, best first."""
    from_model: bool = False
    """True when the model answered from what it learned, because it was asked to without evidence."""
    within: tuple[Path, ...] = ()
    """The files and folders that were asked; none: all."""
    removed: tuple[tuple[str, int], ...] = ()
    """Of a question whose filters left no passage, as Misses.removed; `nearest` then is what they left out."""
    refused: bool = False
    """True when the model read the passages and says that they do not say."""

    @property
    def pieces_per_s(self) -> float | None:
        """How fast it was written, once it began; None where that was not measured, or nothing was."""
        timings = self.timings
        writing_s = timings.get("total_s", 0.0) - timings.get("first_piece_s", 0.0)
        num = timings.get("num_pieces", 0.0) - 1
        is_measured = "first_piece_s" in timings and num > 0 and writing_s > _LEAST_MEASURED_S
        return num / writing_s if is_measured else None

    @property
    def support(self) -> str:
        """`3 of 4 sentences supported by [1][2]`, for a person; "" of an answer that is not grounded."""
        supported = [each for each in self.sentences if each.is_supported]
        if not supported:
            return ""
        by = "".join(f"[{n}]" for n in sorted({each.citation.n for each in supported if each.citation}))
        num = len(self.sentences)
        return f"{len(supported)} of {num} sentence{'s' * (num > 1)} supported by {by}"


@dataclass(frozen=True)
class Exchange:
    """One question of a conversation and its answer, with the passages that the answer was given."""

    answer: Answer
    hits: tuple[Hit, ...] = ()
    """[1] first."""
    asked_at: float = 0.0
    """Seconds since 1970."""

    @property
    def question(self) -> str:
        return self.answer.question

    @property
    def cited(self) -> tuple[Hit, ...]:
        """The passages that the answer cites."""
        cited = {each.n for each in self.answer.citations}
        return tuple(hit for n, hit in enumerate(self.hits, start=1) if n in cited)


@dataclass(frozen=True)
class Chat:
    """A conversation that is kept."""

    id: str
    title: str
    """The first question, unless a person gave another one."""
    exchanges: tuple[Exchange, ...]
    is_pinned: bool = False
    num_damaged: int = 0
    """Lines of its file that cannot be read."""
    is_named: bool = False
    """Whether a person gave the title."""


@dataclass(frozen=True)
class ChatSummary:
    """What a list of chats shows of one."""

    id: str
    title: str
    num_exchanges: int
    started_at: float
    """Seconds since 1970, as `asked_at`: of the first question, and of the last one."""
    asked_at: float
    is_pinned: bool
    size_bytes: int


@dataclass(frozen=True)
class ChatHit:
    """A stretch of a kept conversation that was found."""

    chat_id: str
    title: str
    number: int
    """Of the exchange, from 1; 0 is the title."""
    asked_at: float
    hit: Hit


@dataclass(frozen=True)
class EvidenceFound:
    """Retrieval is done: these are the passages the prompt holds, [1] first; without evidence the nearest misses."""

    hits: tuple[Hit, ...]
    evidence: Evidence = "found"


@dataclass(frozen=True)
class PieceGenerated:
    text: str


@dataclass(frozen=True)
class AnswerRestarted:
    """The engine died and was started again; the pieces so far are void and come anew."""

    reason: str


@dataclass(frozen=True)
class AnswerFinished:
    answer: Answer


AnswerEvent = EvidenceFound | PieceGenerated | AnswerRestarted | AnswerFinished
"""What an answer is made of, in order: evidence, pieces (possibly restarted), the finished answer."""


@dataclass(frozen=True)
class IndexProgress:
    """Where indexing stands; one is sent at least per changed file and per slice of passages."""

    files_done: int
    files_total: int
    current: Path | None = None
    chunks_embedded: int = 0
    """Embeddings computed in this run (reused ones do not count)."""
    note: str = ""
    """What a person should know at once, such as a change of the model; mostly empty."""
    chunks_awaiting: int = 0
    """Passages that are found by words now and await their embedding; those of files that are being read again, after
    a change of settings, are not counted."""
    seconds_left: float | None = None
    """How long all that is left will take, as far as can be told."""

    @property
    def is_done(self) -> bool:
        """Whether words and meaning are up to date."""
        return self.files_done >= self.files_total and not self.chunks_awaiting


@dataclass(frozen=True)
class FailedFile:
    path: Path
    reason: str


@dataclass(frozen=True)
class Skip:
    """By which rule a path is no document."""

    rule: str
    """Short and the same for all that it leaves out, to be counted: "hidden name", "no reader for .png"."""
    path: Path
    """What the rule speaks of: the path itself, or a folder above it."""
    detail: str = ""
    """The line of a file of rules, or where a link leads."""
    file: Path | None = None
    """The file of rules that says so, if one does."""
    line: int | None = None
    """1-based, in that file."""

    @property
    def reason(self) -> str:
        """The rule with its place or its target, in one line."""
        return f"{self.file}:{self.line}: {self.detail}" if self.file else f"{self.rule} {self.detail}".rstrip()


@dataclass(frozen=True)
class IndexReport:
    """What one indexing run did."""

    files_seen: int
    files_indexed: int
    """Read, chunked and written because they were new or changed."""
    files_unchanged: int
    files_deleted: int
    chunks_embedded: int
    chunks_reused: int
    """Of the files that were read, those whose embedding was there already."""
    failed: tuple[FailedFile, ...]
    seconds: float
    files_copied: int = 0
    """New ones whose content another file had: moved, renamed, copied or restored, and not read."""
    folders_kept: int = 0
    """Of `failed`: folders that are away, empty or closed, whose files are kept as they were."""


@dataclass(frozen=True)
class Status:
    """What `gritdesk status` and the status line show."""

    files: int
    chunks: int
    pending: int
    """Files in the folders whose present content is not in the index."""
    failed: tuple[FailedFile, ...]
    folders: tuple[Path, ...]
    model: str
    """Path of the model file; where there is none, the sentence that says so."""
    fingerprint: str
    index_path: Path | str
    """Where the index is: a file, or the URL of a database."""
    index_bytes: int
    text_bytes: int
    keeper: str = ""
    """The process that indexes now, as shown to a person; "" if there is none."""
    awaiting: int = 0
    """Passages that are found by words and await their meaning."""
    paused: str = ""
    """Since and until when indexing is paused; "" if it is not."""
    quiet: bool = False
    """Whether what watches rests twice as long as it works."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """How many files and folders each rule leaves out, by Skip.rule; what lies in such a folder is not counted."""
    sends: str = ""
    """What leaves this machine; "" if nothing does."""
    chats: int = 0
    """Conversations that are kept."""
    chats_bytes: int = 0
    """Of them and of what finds them."""
    states_bytes: int = 0
    """What the states of passages take on disk, of `states_max_bytes`."""
    states_max_bytes: int = 0
    """0 if none are kept."""
    states_hit_rate: float | None = None
    """Share of the passages lately asked about whose state was there; None while none was asked about."""


@dataclass(frozen=True)
class FileRow:
    """A file of the library, on the disk or in the index."""

    path: Path
    state: Literal["indexed", "changed", "waiting", "failed", "missing"]
    """changed: indexed, but with an older content; waiting: not read yet; missing: in the index alone."""
    size_bytes: int
    modified_ns: int
    """In nanoseconds since 1970."""
    reason: str = ""
    """Of `failed`: why it could not be read."""


@dataclass(frozen=True)
class FolderRow:
    """A folder that is kept in the index."""

    path: Path
    num_indexed: int
    num_waiting: int
    """Files that the next run reads, of those indexed with an older content too."""
    num_failed: int
    size_bytes: int
    problem: str = ""
    """Why it could not be looked into, if so; its files are kept."""
    num_chunks: int = 0
    """Of its files in the index."""


@dataclass(frozen=True)
class Library:
    """Folders, their files, and what is left out of them."""

    folders: tuple[FolderRow, ...]
    files: tuple[FileRow, ...]
    """In the order of their paths."""
    skips: tuple[Skip, ...]
    """The first some thousand paths that rules leave out."""
    num_skipped: Mapping[str, int]
    """By Skip.rule, all of them."""
    num_chunks: int = 0
    """Of all files in the index."""


@dataclass(frozen=True)
class PathReport:
    """Whether a path is in the index, and why."""

    path: Path
    """Full, and by the name that the index has for it."""
    state: Literal["indexed", "failed", "waiting", "skipped", "missing", "outside", "folder"]
    """waiting: the next run reads it; missing: it is not there and was never read; outside: of no indexed folder."""
    reason: str
    """In one line, for a person."""
    skip: Skip | None = None
    """The rule that leaves it out, if one does; one that came after it was read may stand beside `indexed`."""
    exists: bool = True
    format: str = ""
    """The reader's, as Document has it; of `indexed`, like the numbers that follow."""
    num_chunks: int = 0
    num_embedded: int = 0
    """Chunks that are found by meaning, and not by words alone."""
    modified_ns: int | None = None
    """When the content that was read, or tried, had been written, in nanoseconds since 1970."""
    has_changed: bool = False
    """Whether the file has another content by now, by its size and time."""


@dataclass(frozen=True)
class KindCount:
    """Files of one suffix in a folder that the index does not hold as they are."""

    num_files: int
    size_bytes: int
    drawn: tuple[tuple[Path, int], ...] = ()
    """A few of them, with their bytes, drawn by chance."""


@dataclass(frozen=True)
class FolderCount:
    """What a folder holds for the index, as far as it was counted."""

    folder: Path
    num_files: int = 0
    size_bytes: int = 0
    num_known: int = 0
    """Of the files, those that the index holds as they are."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """How many files and folders each rule leaves out, by Skip.rule, and what is too large or in the cloud."""
    kinds: Mapping[str, KindCount] = field(default_factory=dict)
    """By suffix."""
    problem: str = ""
    """Why the folder cannot be looked into; "" if it can."""
    is_over: bool = False
    """Counting has ended."""
    is_whole: bool = True
    """False if it ended before all was counted: there is more than this."""

    @property
    def num_skipped(self) -> int:
        return sum(self.skipped.values())


@dataclass(frozen=True)
class Estimate:
    """How long indexing would take, as far as a short trial can tell."""

    folders: tuple[FolderCount, ...]
    """What it is of; none of them lies in another."""
    num_passages: int
    words_s: float
    """Until everything is found by words."""
    meaning_s: float
    """Until it is found by meaning, from then on."""
    tokens_per_s: float
    """Of passages, as the model embeds them here."""

    @property
    def num_files(self) -> int:
        return sum(each.num_files for each in self.folders)

    @property
    def num_new(self) -> int:
        """Files that the index does not hold as they are."""
        return self.num_files - sum(each.num_known for each in self.folders)

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.folders)

    @property
    def num_skipped(self) -> int:
        return sum(each.num_skipped for each in self.folders)

    @property
    def is_whole(self) -> bool:
        return all(each.is_whole for each in self.folders)

    @property
    def seconds(self) -> float:
        return self.words_s + self.meaning_s


@dataclass(frozen=True)
class Price:
    """What it costs to change a setting."""

    num_files: int = 0
    """Read again."""
    num_passages: int = 0
    """Embedded anew; at most, where files are read again."""
    seconds: float | None = None
    """About; None where nobody can tell."""
    told: str = ""
    """All of it for a person; "" if it costs nothing."""
