"""From a folder on disk to documents: which files count, what is in them, and why the others were left out."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atmosphere.knowledge.passages import VERSION, Passage, split_markdown, split_pages, split_text

MAX_FILE_BYTES = 20 * 1024 * 1024  # a book is 1 MB of text, an illustrated manual 20 MB of PDF
MAX_FILES = 5_000                  # per folder: each is read on every refresh
MAX_ENTRIES = 100_000              # looked at per folder, so that adding / by mistake ends
MAX_PAGES = 2_000

MARKDOWN = frozenset({".md", ".markdown"})
TEXT = frozenset({".txt", ".text", ".rst", ".adoc", ".org", ""})
PDF = frozenset({".pdf"})
_BULK = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})  # other people's files, by the thousand


class Unreadable(Exception):
    """A file gives no text; the message is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was left out."""

    path: str
    """Relative to the indexed folder."""
    reason: str


def find_files(root: Path, skip: Callable[[Skipped], None]) -> Iterator[Path]:
    """The files at *root* that may hold text, in a fixed order; everything else goes to *skip* with its reason.

    Links are not followed: what lies outside the folder was not offered. Hidden folders are left out. A *root* that is
    a file is taken whatever its suffix says.
    """
    if root.is_file():
        yield root
        return
    files = entries = 0

    def relative(path: Path) -> str:
        return os.path.relpath(path, root).encode("utf-8", "replace").decode()

    def unreadable(error: OSError) -> None:
        skip(Skipped(relative(Path(error.filename)), f"cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        for name in sorted(folders):
            if name.startswith(".") or name in _BULK:
                folders.remove(name)
                skip(Skipped(relative(Path(folder, name)), "hidden or generated folder"))
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            entries += 1
            if entries > MAX_ENTRIES:
                skip(Skipped(relative(path), f"more than {MAX_ENTRIES} files: add its folders one by one"))
                return
            if reason := _refusal(path):
                skip(Skipped(relative(path), reason))
            elif files >= MAX_FILES:
                skip(Skipped(relative(path), f"more than {MAX_FILES} documents: add its folders one by one"))
            else:
                files += 1
                yield path


def is_utf8(path: Path) -> bool:
    """Whether *path* can be written down: file systems allow names that are no text."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_bytes(path: Path) -> bytes:
    """The content of a regular file within the size limit. Raises :class:`Unreadable`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer for ever
            raise Unreadable("not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise Unreadable(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    return data


def digest_of(path: Path, data: bytes) -> bytes:
    """Changes when the document must be cut and embedded again: its content, its name, the rules of cutting."""
    return hashlib.sha256(f"{VERSION}\0{path.name}\0".encode() + data).digest()


def split_document(path: Path, data: bytes) -> list[Passage]:
    """The passages of the file *path* with content *data*. Raises :class:`Unreadable`, also when there is no text."""
    suffix = path.suffix.lower()
    if suffix in PDF or data.startswith(b"%PDF-"):
        passages = split_pages(_pdf_pages(data))
        empty = "no text in it: probably scanned pages"
    elif data.startswith(b"#!"):
        raise Unreadable("a program, not a document")
    else:
        split = split_markdown if suffix in MARKDOWN else split_text
        passages = split(_decode(data), path.name)
        empty = "no text in it"
    if not passages:
        raise Unreadable(empty)
    return passages


def _refusal(path: Path) -> str:
    if not is_utf8(path):
        return "its name is not valid UTF-8"
    if path.is_symlink():
        return "symbolic link"
    if path.name.startswith("."):
        return "hidden file"
    if path.suffix.lower() not in MARKDOWN | TEXT | PDF:
        return "neither text, Markdown nor PDF by its name"
    return ""


def _decode(data: bytes) -> str:
    """UTF-8, UTF-16 with its mark, or else Windows-1252, in which much older text is."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data:
        raise Unreadable("binary")
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return data.decode(encoding).replace("\0", " ")
        except UnicodeDecodeError:
            continue
    raise Unreadable("binary, or text in an unknown encoding")


def _pdf_pages(data: bytes) -> list[str]:
    from pypdf import PdfReader  # 0.3 s to import: only who has a PDF pays

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted PDF")
        if len(reader.pages) > MAX_PAGES:
            raise Unreadable(f"more than {MAX_PAGES} pages")
        pages = [page.extract_text() for page in reader.pages]
    except Unreadable:
        raise
    except Exception as error:  # damaged files raise whatever the parser stumbles over
        raise Unreadable(f"damaged PDF: {error}") from error
    return [page.replace("\0", " ").encode("utf-8", "replace").decode() for page in pages]
