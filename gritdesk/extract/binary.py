"""What a file is that is no text, by its first bytes: for the reason why it is not read."""

from __future__ import annotations

_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF87a", "a GIF image"),
    (0, b"GIF89a", "a GIF image"),
    (0, b"II*\0", "a TIFF or camera raw image"),
    (0, b"MM\0*", "a TIFF or camera raw image"),
    (0, b"8BPS\0", "a Photoshop image"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"gimp xcf", "a GIMP image"),
    (0, b"AT&TFORM", "a DjVu scan"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"ID3", "MP3 audio"),
    (0, b"fLaC\0", "FLAC audio"),
    (0, b"OggS\0", "Ogg audio or video"),
    (0, b"MThd\0\0\0\x06", "MIDI music"),
    (0, b"FORM\0", "audio or an image (IFF)"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"\0\0\x01\xba", "MPEG video"),
    (0, b"\0\0\x01\xb3", "MPEG video"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Windows media"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (4, b"Standard Jet DB", "an Access database"),
    (4, b"Standard ACE DB", "an Access database"),
    (0, b"!BDN", "an Outlook mailbox (PST); export it as .mbox or .eml"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"ARROW1\0\0", "an Arrow table"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 data"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x7fELF", "a program or library (ELF)"),
    (0, b"\xcf\xfa\xed\xfe", "a program or library (Mach-O)"),
    (0, b"\xce\xfa\xed\xfe", "a program or library (Mach-O)"),
    (0, b"\xca\xfe\xba\xbe", "a compiled Java class or a program (Mach-O)"),
    (0, b"!<arch>\n", "a library of object files or a Debian package"),
    (0, b"\0asm", "a WebAssembly program"),
    (0, b"dex\n03", "an Android program"),
    (0, b"L\x01", "an object file (COFF)"),
    (0, b"d\x86", "an object file (COFF)"),
    (0, b"BC\xc0\xde", "LLVM bitcode"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"\0\x01\0\0\0", "a font"),
    (0, b"true\0", "a font"),
    (0, b"OTTO\0", "a font"),
    (0, b"ttcf\0", "a font"),
    (0, b"wOFF", "a font"),
    (0, b"wOF2", "a font"),
    (0, b"PACK\0\0\0", "a Git pack"),
    (0, b"\xfftOc", "the index of a Git pack"),
    (0, b"DIRC\0\0\0", "a Git index"),
    (0, b"\0\0\0\x01Bud1", "a folder's view of the Finder"),
    (0, b"bplist00", "a property list (binary)"),
    (0, b"\xde\x12\x04\x95", "compiled translations (gettext)"),
    (0, b"\x95\x04\x12\xde", "compiled translations (gettext)"),
    (0, b"regf", "a Windows registry hive"),
    (0, b"\xd4\xc3\xb2\xa1", "a network capture"),
    (0, b"\n\r\r\n", "a network capture"),
    (257, b"ustar", "a tar archive; unpack it to include what it holds"),
    (0x8001, b"CD001", "a disk image (ISO)"),
)
"""(offset, bytes there, what it is). Short ones only count where the content is no text."""
_IN_BOXES = {
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"mif1": "a HEIC image",
    b"avif": "an AVIF image",
    b"M4A ": "MPEG-4 audio",
    b"crx ": "a camera raw image",
}
_IN_RIFF = {b"WEBP": "a WebP image", b"WAVE": "WAV audio", b"AVI ": "AVI video"}


def kind(content: bytes) -> str | None:
    """What a file without text is, as "a PNG image", or None if that is not known.

    Source: the formats' own specifications; most of these bytes are listed in `file`'s magic database as well.
    """
    for offset, magic, name in _KINDS:
        if content.startswith(magic, offset):
            return name
    if content[4:8] == b"ftyp":
        return _IN_BOXES.get(content[8:12], "MPEG-4 or QuickTime video")
    if content.startswith(b"RIFF"):
        return _IN_RIFF.get(content[8:12], "audio or video (RIFF)")
    if content.startswith(b"MZ"):
        return "a Windows program or library"
    if content.startswith(b"BM") and content[6:10] == bytes(4):
        return "a BMP image"
    if content[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return "MP3 audio"
    if content[2:4] == b"\r\n" and 0x0C < content[1] <= 0x0F:  # the magic of CPython 3.x counts up from 3000
        return "compiled Python"
    if content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a Python pickle"
    return None
