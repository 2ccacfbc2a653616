"""A question within a conversation -> what to search for, when it does not say all of it itself.

    past                       question               searched for
    When was the Marigold      How long is it?        How long is it? Marigold built Port Arden
    built? In Port Arden ...

The rules of this file trust no model. They find whether a question stands alone (no pronoun that points back, no
ellipsis, telling words of its own) and add to one that does not the telling words of what was searched for before and
the names of its answer. The question's own words all stay, so that a word too many can mislead the search a little
and never make it another one. They know English; of other languages a question is searched for as it was asked.

A larger model can write the question out instead (`answer.rewrite`); what it writes is taken only if `keeps` holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from gritdesk.records import Exchange, Hit, Sampling, Turn

_WORD = re.compile(r"[^\W_]+(?:['’_.\-/+#]*[^\W_]+)*[+#]*")
_NAME = re.compile(r"\w*\d\w*|(?<=[^.!?…:\s] )(?!I\b)[^\W\d_a-z][\w\-]*")
"""Numbers, and words with a capital that begin no sentence."""
_NUMBER = re.compile(r"\[\d{1,2}\]")
"""Of a passage, which is no word of an answer."""
_FUNCTION_WORDS = frozenset(
    """a about after again all also am an and any anybody anyone anything are as at be because been before being both
    but by came can come comes could did do does doing done during each either else ever every everybody everyone
    everything few first for from get gets give gives go goes got had happen happened happens has have he her here hers
    him his how i if in instead into is it its itself just know last like long made make makes many may me mean means
    might mine more most much must my need needs next no nobody none nor not nothing now of off often old on once one
    ones only or other others our out over own please same say says second she should so some somebody someone
    something still such take takes tell than that the their theirs them then there these they thing things third this
    those through to too under until up use used uses very was way we went were what when where whether which while who
    whom whose why will with within without work works would yes yet you your""".split()
)
"""Words that say little of what is asked about."""
_POINTING = frozenset("he him his himself she her hers herself it its itself they them their theirs themselves".split())
_THESE = frozenset("this that these those".split())
_ONE = re.compile(
    r"\b(?:a|an|the|this|that|which|each|every|any|another|other|of) (?:[\w\-]+ )?ones?\b(?! of)"
    r"|\bhow do \w+ \w+ one\b",
    re.IGNORECASE,
)
_IN_GENERAL = re.compile(
    r"\b(?:an?|any|every|each) (?!one\b)[\w\-]+|\b(?:what|who) (?:is|are|was|were) (?!the\b)[\w\-<>]+\W*$", re.I
)
"""`A shower` is any one, and `what are lifetimes` is asked of nothing before."""
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{5,}")
"""Of a script without spaces, in which a question is one run of letters."""
_THERE_IS = frozenset("is are was were".split())
_JOINS = frozenset("and because before after but if once or since so until when where while".split())
_OF_NOW = frozenset("time way year month week day morning evening".split())
"""`this year` points at the calendar, and `that way` at nothing."""
_OTHERS = frozenset("former latter other others another else instead both neither either same".split())
_EMPTY_IT = re.compile(
    r"\b(?:is|was|does|did|would|will|can|could|should|may|might) it (?:\w+ ){0,3}?"
    r"(?:to|that|for|possible|true|allowed)\b"
    r"|\bit (?:is|was) \w+ (?:to|that|for)\b|\btime is it\b|\bdoes it (?:take (?:\w+ )?to|mean (?:if|when|to))\b",
    re.IGNORECASE,
)
"""`Is it allowed to bring dogs?`: this `it` stands for what follows."""
_OPENING = re.compile(r"(?:and|but|or|so|then|also|ok|okay|well)\b[\s,]*(?:then\b[\s,]*)?", re.IGNORECASE)
_WHAT_ABOUT = re.compile(r"(?:what|how) about\b|why not\b", re.IGNORECASE)
_ASKS = re.compile(
    r"(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|does|do|did|has|have|had|can|could|may|must|"
    r"should|will|would|tell|list|show|explain|describe|name|give|find)\b",
    re.IGNORECASE,
)
_TASK = (
    "Write the following question out so that it can be understood without what was said before. "
    "Do not answer it; write the question alone, in one line."
)
_WEIGHT_ALONE = 0.3
"""Of the question as it was asked, beside what it leaves out."""
_SAME_FILE = 0.2
_DEPTH = 50
"""Hits of each of the two searches."""
_MAX_READ = 3
"""Exchanges that a model is given to write a question out."""
_MAX_TOKENS = 60
_MAX_CARRIED = 8
_MAX_LENGTH = 300
"""Characters of a question that a model wrote."""


@dataclass(frozen=True)
class Rewritten:
    """What to search for."""

    question: str
    """As it was asked."""
    carried: tuple[str, ...] = ()
    """Words of what was said before, the most telling first."""
    by_model: str = ""
    """The question as a model wrote it out."""
    leaves_out: bool = False
    """Whether the question cannot be understood without what was said before."""

    @property
    def line(self) -> str:
        """The query line: the question and, behind it, what it leaves out."""
        return self.by_model or " ".join((self.question, *self.carried))

    @property
    def to_read(self) -> str:
        """The question as the answering model reads it: what it leaves out stands in brackets behind it."""
        return self.by_model or (f"{self.question} ({' '.join(self.carried)})" if self.carried else self.question)

    @property
    def searched_for(self) -> str:
        """The line if it is another one than the question, else ""."""
        return self.line if self.line != self.question else ""


def found(asked: Rewritten, past: Sequence[Exchange], search: Callable[[str, int], Sequence[Hit]], n: int) -> list[Hit]:
    """The `n` best hits of a question; where it leaves something out, of it alone and of its line in a weighted sum.

    A hit in a file that the last answer cited has something added: most follow-ups stay with their file. Weights and
    what is added were measured by benchmarks/follow_ups.py.

    Args:
        search: `n` best hits of a query line, best first; their scores go from 0 to about 1.
    """
    if asked.line == asked.question:
        return list(search(asked.question, n))
    files = {citation.path for citation in past[-1].answer.citations} if past else set()
    scores: dict[int, float] = {}
    hits: dict[int, Hit] = {}
    for line, weight in ((asked.question, _WEIGHT_ALONE), (asked.line, 1 - _WEIGHT_ALONE)):
        for hit in search(line, max(_DEPTH, n)):
            # its distance is to the line, by which evidence is weighed; to the bare question's it has no relation
            hits[hit.chunk_id] = hit if line == asked.line else replace(hit, distance=None)
            scores[hit.chunk_id] = scores.get(hit.chunk_id, 0.0) + weight * hit.score
    for chunk_id, hit in hits.items():
        scores[chunk_id] += _SAME_FILE if hit.path in files else 0.0
    ranked = sorted(scores, key=lambda each: -scores[each])[:n]
    return [replace(hits[each], score=scores[each]) for each in ranked]


def rewritten(question: str, past: Sequence[Exchange]) -> Rewritten:
    """The question with what it leaves out of the conversation so far; itself if it stands alone or is the first."""
    if not past or stands_alone(question):
        return Rewritten(question)
    return Rewritten(question, carried_words(question, past[-1]), leaves_out=True)


def by_model(
    asked: Rewritten, past: Sequence[Exchange], generate: Callable[[Sequence[Turn], Sampling], Iterable[object]]
) -> Rewritten:
    """The question written out by a model that reads the conversation; by the rules if what it writes is no good.

    Args:
        generate: pieces of text; anything else that comes voids those before it.
    Raises: ModelError as `generate` does.
    """
    turns: list[Turn] = []
    for each in past[-_MAX_READ:]:
        turns += [Turn("user", each.question), Turn("assistant", each.answer.text)]
    turns.append(Turn("user", f"{_TASK}\n\n{asked.question}"))
    pieces: list[str] = []
    for piece in generate(turns, Sampling(max_tokens=_MAX_TOKENS)):
        pieces = [*pieces, piece] if isinstance(piece, str) else []
    written = "".join(pieces).strip().strip("\"'")
    return replace(asked, by_model=written) if keeps(asked.question, written, past) else asked


def keeps(question: str, written: str, past: Sequence[Exchange]) -> bool:
    """Whether a question written out is one line, holds the asked one's own words, and adds nothing unheard of."""
    if not written or "\n" in written or len(written) > _MAX_LENGTH:
        return False
    words = set(map(_stem, telling_words(written)))
    own = set(map(_stem, telling_words(question)))
    said = " ".join(f"{each.question} {each.answer.text}" for each in past)
    return own <= words and words <= own | set(map(_stem, telling_words(said)))


def stands_alone(question: str) -> bool:
    """Whether a question says itself what it is about, as far as rules can tell."""
    rest = question.strip()
    opening = _OPENING.match(rest)
    if opening:
        rest = rest[opening.end() :]
    if _WHAT_ABOUT.match(rest) or (opening and not _ASKS.match(rest)):
        return _asks_once_more(rest)
    return not _points_back(rest) and _says_enough(rest)


def _asks_once_more(rest: str) -> bool:
    """`What about gorse syrup, how long does that stand?` asks a whole question behind its topic."""
    topic, comma, asked = rest.partition(",")
    return bool(comma) and len(telling_words(topic)) > 1 and bool(_ASKS.match(asked.strip()))


def _points_back(question: str) -> bool:
    """Whether a pronoun, or a word such as `the other`, stands for something that the question itself does not name."""
    question = _EMPTY_IT.sub(" ", question)
    if _ONE.search(question):
        return True
    words = [word.lower() for word in _WORD.findall(question)]
    named_before = {word.lower() for word in _NAME.findall(question)}
    is_named = has_subject = False
    for n, word in enumerate(words):
        following = words[n + 1] if n + 1 < len(words) else ""
        before = words[n - 1] if n else ""
        if word in _POINTING and not is_named and not (has_subject and before in _JOINS):
            return True
        if word in _THESE and _is_demonstrative(word, before, following):
            return True
        if word in _OTHERS and (not following or following in _FUNCTION_WORDS) and before != "no":
            return True
        if word in ("there", "here", "then") and not (following or is_named or before in _THERE_IS):
            return True
        is_named = is_named or word in named_before
        has_subject = has_subject or word not in _FUNCTION_WORDS
    return False


def _is_demonstrative(word: str, before: str, following: str) -> bool:
    if following in _OF_NOW:
        return False
    if word == "that" and before and before not in _FUNCTION_WORDS:  # the boat that sails
        return False
    return True


def _says_enough(question: str) -> bool:
    """Whether there is a name, or two telling words: of one word alone nobody knows what it is asked of."""
    if _NAME.search(question) or _IN_GENERAL.search(question) or _UNSPACED.search(question):
        return True
    return len(telling_words(question)) > 1


def telling_words(text: str) -> list[str]:
    """Words that mean something, each once, in order and as they are spelled."""
    words = {word.lower(): word for word in reversed(_WORD.findall(text))}
    return [word for key, word in reversed(words.items()) if key not in _FUNCTION_WORDS]


def carried_words(question: str, last: Exchange) -> tuple[str, ...]:
    """Telling words of what was searched for last, then names of its answer if files hold it, without the own ones."""
    searched = telling_words(last.answer.searched_for or last.question)
    names = _NAME.findall(_NUMBER.sub(" ", last.answer.text)) if last.answer.grounded else []
    own = {_stem(word) for word in telling_words(question)}
    carried: dict[str, str] = {}
    for word in (*searched, *names):
        if _stem(word) not in own:
            carried.setdefault(_stem(word), word)
    return tuple(carried.values())[:_MAX_CARRIED]


def _stem(word: str) -> str:
    return word.lower()[: max(4, len(word) - 2)]
