"""What is read, what is left out, and the reason that people are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atmosphere.knowledge import files
from atmosphere.knowledge.files import Skipped, Unreadable, digest_of, find_files, read_bytes, split_document


def tiny_pdf(*pages: str) -> bytes:
    """A PDF by hand: one line of text per page, Helvetica."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode("latin-1") if text else b""
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start, size = len(out), len(objects) + 1
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF"
        % (size, table, size, start)
    )


def scan(root: Path) -> tuple[list[str], list[Skipped]]:
    skipped: list[Skipped] = []
    return [path.relative_to(root).as_posix() for path in find_files(root, skipped.append)], skipped


def test_files_come_in_order_and_the_rest_with_its_reason(tmp_path: Path) -> None:
    names = "b.md a.txt LICENSE c.PDF x.png .secret.md sub/d.rst .git/e.md node_modules/f.md"
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "link.md").symlink_to("/etc/hostname")
    found, skipped = scan(tmp_path)
    assert found == ["LICENSE", "a.txt", "b.md", "c.PDF", "sub/d.rst"]
    assert {s.path: s.reason for s in skipped} == {
        ".git": "hidden or generated folder",
        "node_modules": "hidden or generated folder",
        ".secret.md": "hidden file",
        "link.md": "symbolic link",
        "x.png": "neither text, Markdown nor PDF by its name",
    }


def test_a_linked_folder_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("text")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    assert scan(tmp_path / "inside")[0] == []


def test_a_name_that_is_no_text_is_skipped(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("text")
    found, skipped = scan(tmp_path)
    assert found == []
    assert [s.reason for s in skipped] == ["its name is not valid UTF-8"]


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / f"{name}.md").write_text("text")
    found, skipped = scan(tmp_path)
    assert found == ["a.md", "b.md"]
    assert skipped == [Skipped("c.md", "more than 2 documents: add its folders one by one")]
    monkeypatch.setattr(files, "MAX_ENTRIES", 1)
    assert scan(tmp_path)[0] == ["a.md"]


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 2**20)
    (tmp_path / "a.txt").write_bytes(b"x" * 2**20)
    assert len(read_bytes(tmp_path / "a.txt")) == 2**20
    (tmp_path / "a.txt").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(Unreadable, match="larger than 1 MiB"):
        read_bytes(tmp_path / "a.txt")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.txt")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_bytes(tmp_path / "p.txt")


def test_a_vanished_file_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="cannot be read: No such file"):
        read_bytes(tmp_path / "gone.md")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.txt", "Größe".encode(), "Größe"),
        ("a.txt", b"\xef\xbb\xbfmark", "mark"),
        ("a.txt", "Größe".encode("utf-16"), "Größe"),
        ("a.txt", "Größe".encode("cp1252"), "Größe"),
        ("a.md", b"# T\nbody", "body"),
        ("scan.pdf", tiny_pdf("", "Fuse 7 is for the pump"), "Fuse 7 is for the pump"),
        ("no-suffix", tiny_pdf("by content"), "by content"),
    ],
)
def test_documents_are_decoded(name: str, data: bytes, text: str) -> None:
    assert [p.text for p in split_document(Path(name), data)] == [text]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"\x00\x01\x02", "binary"),
        ("a.txt", b"\xff\xfe\x00", "binary"),
        ("a.txt", b"\x81\x8d", "binary"),
        ("a.txt", b" \n\n", "no text in it"),
        ("a.md", b"# only a heading", "no text in it"),
        ("run", b"#!/bin/sh\necho", "a program"),
        ("a.pdf", b"%PDF-1.4 nonsense", "damaged PDF"),
        ("a.pdf", b"", "damaged PDF"),
        ("a.pdf", tiny_pdf("", ""), "probably scanned"),
    ],
)
def test_unreadable_documents_have_a_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        split_document(Path(name), data)


def test_a_pdf_passage_names_its_page() -> None:
    assert [p.locator for p in split_document(Path("a.pdf"), tiny_pdf("one", "two"))] == ["p. 1", "p. 2"]


def test_a_long_pdf_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_PAGES", 1)
    with pytest.raises(Unreadable, match="more than 1 pages"):
        split_document(Path("a.pdf"), tiny_pdf("one", "two"))


def test_the_digest_follows_content_and_name() -> None:
    digests = {digest_of(Path(name), data) for name in ("a.md", "b.md") for data in (b"x", b"y")}
    assert len(digests) == 4
    assert digest_of(Path("/one/a.md"), b"x") == digest_of(Path("/two/a.md"), b"x")
