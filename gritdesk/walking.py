"""Which files of a folder are documents, and by which rule a path is none: what a sweep and a watcher share.

The first of these rules that speaks of a path decides, and a folder that is skipped is not entered:

1. Links, pipes, sockets, devices, and what version control and gritdesk write for themselves are never documents.
2. `.gritignore` files, the nearest first, then the one of all folders, HOME/gritignore. They also bring back
   (`!name`) what the rules below leave out.
3. `.gitignore` files, the nearest first, up to the top of their repository, then its `.git/info/exclude`.
4. What is hidden, what programs keep for themselves, and what no reader could make anything of.

Rules above a folder hold in it, too, unless they leave out that very folder, which somebody asked for by name: so the
same files are documents wherever a walk begins. Those of a repository hold in it and not above or below, as git has it;
where there is no repository, a `.gitignore` holds from the walked folder on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gritdesk.ignoring import Pattern, Patterns
from gritdesk.records import Skip

IGNORE_FILES = frozenset({".gritignore", ".gitignore"})
"""A change of one of these may change what other files are."""
GLOBAL_IGNORE_FILE = "gritignore"
"""In gritdesk's home: rules for every folder, as if it lay there."""

_MAX_IGNORE_BYTES = 10_000_000
"""Of a file of rules; a larger one is none."""
_DATALESS = 0x40000000  # SF_DATALESS in sys/stat.h of macOS
_HIDDEN = 0x8000  # UF_HIDDEN in sys/stat.h of macOS, such as ~/Library
_RECALL_ON_OPEN, _RECALL_ON_DATA_ACCESS = 0x40000, 0x400000  # FILE_ATTRIBUTE_... of Windows, which stat has not
_IN_THE_CLOUD = "the folder lies in the cloud and not on this disk; its files are kept"
_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT of Windows
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_CACHE_TAG = "Signature: 8a477f597d28d172789f06886806bc55"  # bford.info/cachedir

_VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", "CVS", "_darcs"})
_TOOL_FOLDERS = frozenset(
    """node_modules bower_components __pycache__ __pypackages__ site-packages __MACOSX $RECYCLE.BIN RECYCLER lost+found
    DerivedData""".split()
    + ["System Volume Information"]
)
_TOOL_FOLDER_SUFFIXES = (".git", ".egg-info", ".dist-info", ".photoslibrary", ".dSYM", ".xcassets")
_TOOL_FILES = frozenset("desktop.ini Thumbs.db ehthumbs.db CACHEDIR.TAG NTUSER.DAT pagefile.sys hiberfil.sys".split())
_LOCK_FILES = frozenset(
    """package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock Cargo.lock poetry.lock uv.lock pdm.lock
    Pipfile.lock Gemfile.lock composer.lock mix.lock pubspec.lock Podfile.lock flake.lock go.sum""".split()
)
_GENERATED_SUFFIXES = (".min.js", ".min.mjs", ".min.css", ".js.map", ".css.map", ".mjs.map")
_UNFINISHED_SUFFIXES = ("~", ".tmp", ".crdownload", ".part", ".partial", ".swp", ".swo")
_NO_READER_SUFFIXES = frozenset(  # none that text goes by too, such as .vhd (VHDL), .pt (Portuguese), .pdb (proteins)
    # images
    """.png .jpg .jpeg .jpe .jfif .gif .bmp .dib .tif .tiff .webp .avif .heic .heif .ico .icns .cur .svg .svgz .eps .psd
    .psb .xcf .kra .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .jp2 .jxl .exr .hdr .tga .dds .blend .fbx .stl .glb
    """
    # sound and films
    """.mp3 .m4a .m4b .aac .flac .wav .aif .aiff .ogg .oga .opus .wma .mid .midi .amr .ape .mp4 .m4v .mov .avi .mkv
    .webm .wmv .flv .mpg .mpeg .3gp .ogv .vob
    """
    # archives and disk images
    """.zip .gz .tgz .bz2 .tbz .tbz2 .xz .txz .zst .lz .lz4 .lzma .7z .rar .tar .cab .arj .cpio .deb .rpm .apk .ipa .jar
    .war .whl .egg .gem .crate .nupkg .iso .img .dmg .vdi .vmdk .qcow2 .vhdx .msi .appimage
    """
    # programs and what they are made of
    """.exe .dll .so .dylib .a .lib .o .obj .bin .pyc .pyo .pyd .class .elc .beam .wasm .ilk .pch .rlib .rmeta .nib
    """
    # fonts, databases, tables of numbers, weights
    """.ttf .otf .ttc .woff .woff2 .eot .pfb .sqlite .sqlite3 .db .db-wal .db-shm .mdb .accdb .pst .ost .dbf .ldb .sst
    .npy .npz .h5 .hdf5 .parquet .feather .arrow .rds .pkl .pickle .joblib .gguf .ggml .safetensors .pth .ckpt .onnx
    .tflite .mobi .azw .azw3""".split()
)


def is_in_the_cloud(file_stat: os.stat_result) -> bool:
    """Whether opening a file would download it; no such file is opened.

    Source: SF_DATALESS of macOS; for Windows, "File Attribute Constants" in the Win32 documentation.
    """
    recalls = stat.FILE_ATTRIBUTE_OFFLINE | _RECALL_ON_OPEN | _RECALL_ON_DATA_ACCESS
    return bool(_flags(file_stat) & _DATALESS or _attributes(file_stat) & recalls)


def found_within(folder: Path, outer: Path, home: Path | None = None) -> Path | None:
    """The name by which a walk of `outer` finds a folder, however it is linked to; None if it does not."""
    real_folder, real_outer = folder.resolve(), outer.resolve()
    if not real_folder.is_relative_to(real_outer):
        return None
    name = outer / real_folder.relative_to(real_outer)
    return None if Walk(outer, home).skips(name) else name


def distinct(folders: Iterable[Path], home: Path | None = None) -> list[Path]:
    """The folders without those that a walk of another one finds anyway: no file is indexed under two names.

    One that is not there stays: it may be a disk that is not mounted, whose rows its own walk keeps.
    """
    listed = list(dict.fromkeys(folders))
    kept: list[Path] = []
    for folder in sorted(listed, key=lambda each: len(each.resolve().parts)):  # those that hold others first
        if not is_folder(folder) or all(found_within(folder, outer, home) is None for outer in kept):
            kept.append(folder)
    return [folder for folder in listed if folder in kept]


class Walk:
    """One look at a folder; a later look is a new Walk, which reads the files of rules anew.

    Args:
        folder: what was asked for by name, so no rule speaks of it; a link is followed here and nowhere else.
        home: of gritdesk, whose own files are no documents and whose `gritignore` holds everywhere.
        num_kept: how many of the paths that are left out are kept one by one.
    """

    def __init__(self, folder: Path, home: Path | None = None, *, num_kept: int = 0) -> None:
        self.folder = folder
        self.unreadable: dict[Path, str] = {}
        """Folders that could not be listed, and why; filled while walking."""
        self.skipped: Counter[str] = Counter()
        """How many files and folders each rule left out; filled while walking."""
        self.kept: list[Skip] = []
        """The first of them, one by one; filled while walking."""
        self._num_kept = num_kept
        self._home = home
        self._rules: dict[str, _Rules] = {}
        self._folders: dict[str, tuple[Skip | None, bool]] = {}

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every document of the folder in the order of names; a folder that is a file is its only one."""
        try:
            found = look_at(self.folder, follows_link=True)
        except OSError as error:
            self.unreadable[self.folder] = _told_of_folder(error)
            return
        if found is None or not stat.S_ISREG(found.st_mode):
            yield from self._files_under(self.folder, "", self._rules_in(""))
        elif not self._is_own(self.folder):
            yield self.folder, found

    def files_under(self, path: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """The documents at or below one path inside the folder, none if the path is skipped."""
        if self.skips(path):
            return
        try:
            found = look_at(path)
        except OSError as error:
            closed = closed_folder(path)
            self.unreadable[closed if self.folder in closed.parents else self.folder] = _told_of_folder(error)
            return
        if found is None:
            return
        if _is_folder_in_the_cloud(found):
            self.unreadable[path] = _IN_THE_CLOUD
        elif stat.S_ISDIR(found.st_mode):
            inside = "".join(f"{step}/" for step in path.relative_to(self.folder).parts)
            yield from self._files_under(path, inside, self._rules_in(inside))
        elif stat.S_ISREG(found.st_mode):
            yield path, found

    def skips(self, path: Path) -> bool:
        """Whether the rules leave out a path inside the folder, be it there or not."""
        return self.rule(path) is not None

    def rule(self, path: Path) -> Skip | None:
        """By which rule a path inside the folder is no document, or lies in a folder that is skipped; None: it is one.

        A path that is not there is judged by its name alone, as a file. What lies in a folder that lies in the cloud is
        not looked at, and counts as a document: its rows are kept.
        """
        *steps, name = path.relative_to(self.folder).parts or ("",)
        above = ""
        for step in steps:
            inside = f"{above}{step}/"
            if inside not in self._folders:
                folder = self.folder / inside
                found = _lstat(folder)
                skip = self._judged(folder, inside, found, self._rules_in(above))
                self._folders[inside] = skip, _is_folder_in_the_cloud(found)
            skip, is_away = self._folders[inside]
            if skip is not None or is_away:
                return skip
            above = inside
        if not name:
            return None
        found = _lstat(path)
        is_folder = found is not None and stat.S_ISDIR(found.st_mode)
        return self._judged(path, f"{above}{name}/" if is_folder else above + name, found, self._rules_in(above))

    # ------------------------------------------------------------ walking

    def _files_under(self, folder: Path, inside: str, rules: _Rules) -> Iterator[tuple[Path, os.stat_result]]:
        # a stack of its own, not recursion: folders may lie deeper than Python's stack
        open_folders = [(self._listing(folder), inside, rules)]
        while open_folders:
            listing, inside, rules = open_folders[-1]
            for path, file_stat in listing:
                is_folder = stat.S_ISDIR(file_stat.st_mode)
                name_inside = f"{inside}{path.name}/" if is_folder else inside + path.name
                skip = self._judged(path, name_inside, file_stat, rules)
                if skip is not None:
                    self.skipped[skip.rule] += 1
                    if len(self.kept) < self._num_kept:
                        self.kept.append(skip)
                elif not is_folder:
                    yield path, file_stat
                elif _is_folder_in_the_cloud(file_stat):
                    self.unreadable[path] = _IN_THE_CLOUD
                else:
                    open_folders.append(
                        (self._listing(path), name_inside, _with_files_of(rules, path, len(name_inside)))
                    )
                    break
            else:
                open_folders.pop()

    def _listing(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """What one folder holds, by name; nothing, and its reason noted, if it cannot be read."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            found = [(folder / entry.name, entry.stat(follow_symlinks=False)) for entry in entries if _is_there(entry)]
        except FileNotFoundError:
            if folder == self.folder:  # below it, a folder that is gone since its listing is simply gone
                self.unreadable[folder] = (
                    "the folder is not there (moved, or its disk not mounted?); its files are kept"
                )
            return
        except OSError as error:
            self.unreadable[folder] = _told_of_folder(error)
            return
        yield from found

    # ------------------------------------------------------------ the rules

    def _judged(self, path: Path, inside: str, file_stat: os.stat_result | None, rules: _Rules) -> Skip | None:
        """By which rule one path is skipped, whatever lies above it; `file_stat` is None if it is not there."""
        if file_stat is not None and _is_link(file_stat):
            return Skip("symbolic link", path, self._told_link(path))
        if file_stat is not None and not (stat.S_ISREG(file_stat.st_mode) or stat.S_ISDIR(file_stat.st_mode)):
            return Skip("pipe, socket or device", path)
        if path.name in _VERSION_CONTROL:
            return Skip("kept by version control", path)
        if self._is_own(path):
            return Skip("gritdesk's own file", path)
        for source in rules.ours:
            pattern = source.speaking_of(inside)
            if pattern is not None:
                return source.skip(path, pattern) if pattern.ignores else None
        for source in rules.gits:
            pattern = source.speaking_of(inside)
            if pattern is not None and pattern.ignores:
                return source.skip(path, pattern)
            if pattern is not None:
                break
        rule = _default_rule(path, inside.endswith("/"), file_stat)
        return None if rule is None else Skip(rule, path)

    def _told_link(self, link: Path) -> str:
        try:
            target = link.parent / os.readlink(link)
        except OSError:
            return "to an unknown place"
        real_target = Path(os.path.realpath(target))
        if not os.path.exists(real_target):
            return f"to {target}, which is not there"
        if real_target.is_relative_to(os.path.realpath(self.folder)):
            return f"to {target}, which counts by that name"
        return f"to {target}, outside of {self.folder}"

    def _is_own(self, path: Path) -> bool:
        """Whether gritdesk itself writes the file: a log that is indexed would change with every run, without end."""
        if self._own_home is None or not str(path).startswith(f"{self._own_home}{os.sep}"):
            return False
        name = path.relative_to(self._own_home).parts[0]
        return name in ("logs", "models", "chats", "states", "index.lock", "config.lock", GLOBAL_IGNORE_FILE) or (
            name.startswith(("index.sqlite", "chats.", "index.keeper.json", "index.pause.json", "config.toml"))
            or name.startswith(("model_identities.json", "queries.json"))
        )

    @cached_property
    def _own_home(self) -> Path | None:
        """The home by the name that the walk has for it, where it finds it."""
        if self._home is None:
            return None
        real_home, real_folder = self._home.resolve(), self.folder.resolve()
        within = real_home.is_relative_to(real_folder)
        return self.folder / real_home.relative_to(real_folder) if within else self._home

    def _rules_in(self, inside: str) -> _Rules:
        """What holds in a folder, of whose upper folders it is known already."""
        if inside not in self._rules:
            if not inside:
                self._rules[inside] = _rules_at(self.folder, self._home)
            else:
                above = inside[: inside.rfind("/", 0, -1) + 1]
                self._rules[inside] = _with_files_of(self._rules_in(above), self.folder / inside, len(inside))
        return self._rules[inside]


@dataclass(frozen=True)
class _Source:
    """One file of rules, and how it names the paths of the walked folder."""

    path: Path
    patterns: Patterns
    num_dropped: int
    """Characters to drop from a path in the walked folder: the file lies deeper in."""
    prefix: str
    """To put before such a path: the file lies above the walked folder."""

    def speaking_of(self, inside: str) -> Pattern | None:
        return self.patterns.speaking_of(self.prefix + inside[self.num_dropped :])

    def skip(self, path: Path, pattern: Pattern) -> Skip:
        name = ".git/info/exclude" if self.path.name == "exclude" else self.path.name
        return Skip(f"ignored by {name}", path, pattern.text, self.path, pattern.line)


@dataclass(frozen=True)
class _Rules:
    """The files of rules that hold in one folder, the strongest first."""

    ours: tuple[_Source, ...] = ()
    gits: tuple[_Source, ...] = ()


def _rules_at(folder: Path, home: Path | None) -> _Rules:
    """What holds in a walked folder: gritdesk's rules for all, those above the folder, its own."""
    for_all = rules = _Rules(_sources(home / GLOBAL_IGNORE_FILE) if home else ())
    real_folder = folder.resolve()
    top = next((each for each in (real_folder, *real_folder.parents) if _lstat(each / ".git")), None)
    for parent in reversed(real_folder.parents):
        way = f"{real_folder.relative_to(parent).as_posix()}/"
        rules = _with_files_of(
            rules, parent, prefix=way, is_in_repository=top is not None and parent.is_relative_to(top)
        )
        if _leave_out_way(rules, way[way.index("/") + 1 :]):
            rules = for_all  # whoever asked for the folder by name has overruled them
    return _with_files_of(rules, folder)


def _leave_out_way(rules: _Rules, rest: str) -> bool:
    """Whether rules above the walked folder leave out a folder on the way to it, from which `rest` leads to it."""
    for source in (*rules.ours, *rules.gits):
        if source.prefix:
            pattern = source.patterns.speaking_of(source.prefix[: len(source.prefix) - len(rest)])
            if pattern is not None:
                return pattern.ignores
    return False


def _with_files_of(
    rules: _Rules, folder: Path, num_dropped: int = 0, prefix: str = "", is_in_repository: bool = True
) -> _Rules:
    """The rules with those of one folder more, which is the nearest one."""
    ours = _sources(folder / ".gritignore", num_dropped, prefix)
    if not is_in_repository:
        return _Rules(ours + rules.ours, rules.gits) if ours else rules
    gits = _sources(folder / ".gitignore", num_dropped, prefix)
    if _lstat(folder / ".git") is not None:
        exclude = _sources(_git_folder(folder) / "info" / "exclude", num_dropped, prefix)
        return _Rules(ours + rules.ours, gits + exclude)
    return _Rules(ours + rules.ours, gits + rules.gits) if ours or gits else rules


def _git_folder(folder: Path) -> Path:
    """Where a repository keeps what all its working trees share (gitrepository-layout(5): `gitdir`, `commondir`)."""
    link = _content(folder / ".git") or ""
    if not link.startswith("gitdir: "):
        return folder / ".git"
    own = folder / link.removeprefix("gitdir: ").rstrip("\r\n")
    return own / (_content(own / "commondir") or "").rstrip("\r\n")


def _sources(path: Path, num_dropped: int = 0, prefix: str = "") -> tuple[_Source, ...]:
    text = _content(path)
    return () if not text else (_Source(path, Patterns(text), num_dropped, prefix),)


def _content(path: Path) -> str | None:
    """Of a file of rules; None if it is missing or cannot be read, is a link (as git has it), or in the cloud."""
    found = _lstat(path)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_IGNORE_BYTES or is_in_the_cloud(found):
        return None
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")  # as names of files that are no UTF-8
    except OSError:
        return None


def _default_rule(path: Path, is_folder: bool, file_stat: os.stat_result | None) -> str | None:
    """What is left out if no file of rules speaks of it."""
    name = path.name
    if name.startswith("."):
        return "in iCloud and not on this disk" if name.endswith(".icloud") else "hidden name"
    if file_stat is not None and (_flags(file_stat) & _HIDDEN or _attributes(file_stat) & stat.FILE_ATTRIBUTE_HIDDEN):
        return "marked as hidden"
    if is_folder:
        return _folder_rule(path, name, may_look=not _is_folder_in_the_cloud(file_stat))
    return _file_rule(name)


def _folder_rule(path: Path, name: str, may_look: bool) -> str | None:
    if name in _TOOL_FOLDERS or name.endswith(_TOOL_FOLDER_SUFFIXES):
        return "folder that programs fill"
    if may_look and _lstat(path / "pyvenv.cfg"):
        return "virtual environment of Python"
    if may_look and (_content(path / "CACHEDIR.TAG") or "").startswith(_CACHE_TAG):
        return "cache by its CACHEDIR.TAG"
    return None


def _file_rule(name: str) -> str | None:
    if name in _TOOL_FILES:
        return "file that programs keep"
    if name in _LOCK_FILES:
        return "lock file of a package manager"
    lower = name.lower()
    if lower.endswith(_GENERATED_SUFFIXES):
        return "minified file or source map"
    if lower.endswith(_UNFINISHED_SUFFIXES) or name.startswith("~$"):
        return "temporary file"
    suffix = os.path.splitext(lower)[1]
    return f"no reader for {suffix}" if suffix in _NO_READER_SUFFIXES else None


# ---------------------------------------------------------------- the door to the file system


def look_at(path: Path, *, follows_link: bool = False) -> os.stat_result | None:
    """What lies at a path, of a link the link itself unless it is to be followed; None if there is nothing.

    pathlib's `exists`, `is_dir` and `is_file` raise for some failures and say no for others; here one rule holds.

    Raises: OSError if nobody can tell, for want of a permission (EACCES) or because a disk or a server fails (EIO,
        ESTALE): the path is not gone then, and what the index has of it is kept.
    """
    try:
        return os.stat(path) if follows_link else os.lstat(path)
    except ValueError:  # no name at all
        return None
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise


def is_folder(path: Path) -> bool:
    """Whether a folder, or a link to one, can be seen there now; one behind a closed folder is as one that is away."""
    return os.path.isdir(path)


def closed_folder(path: Path) -> Path:
    """The folder that keeps a path from being looked at: the nearest above it that can be looked at itself."""
    return next((folder for folder in path.parents if _lstat(folder) is not None), path.parent)


def _told_of_folder(error: OSError) -> str:
    return f"the folder cannot be read ({error.strerror or error}); its files are kept"


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):  # not there, not to be seen, or no name at all
        return None


def _is_there(entry: os.DirEntry[str]) -> bool:
    """False if it went since the folder was listed."""
    try:
        entry.stat(follow_symlinks=False)  # the entry remembers the answer
    except FileNotFoundError:
        return False
    return True


def _is_link(file_stat: os.stat_result) -> bool:
    """A symbolic link, or the junction that Windows has for folders."""
    return stat.S_ISLNK(file_stat.st_mode) or getattr(file_stat, "st_reparse_tag", 0) == _JUNCTION


def _is_folder_in_the_cloud(file_stat: os.stat_result | None) -> bool:
    """Whether listing a folder would fetch it; on Windows one that is partly in the cloud is listed all the same."""
    if file_stat is None or not stat.S_ISDIR(file_stat.st_mode):
        return False
    return bool(_flags(file_stat) & _DATALESS or _attributes(file_stat) & _RECALL_ON_OPEN)


def _flags(file_stat: os.stat_result) -> int:
    """Of macOS; 0 elsewhere."""
    return getattr(file_stat, "st_flags", 0)


def _attributes(file_stat: os.stat_result) -> int:
    """Of Windows; 0 elsewhere."""
    return getattr(file_stat, "st_file_attributes", 0)
