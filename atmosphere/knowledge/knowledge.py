"""The folders that this node answers from: indexing, remembering, searching."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from atmosphere.embedding import Embedder
from atmosphere.env import Env
from atmosphere.knowledge.files import Skipped, Unreadable, digest_of, find_files, is_utf8, read_bytes, split_document
from atmosphere.knowledge.passages import Passage
from atmosphere.knowledge.ranking import Entry, Hit, PassageIndex
from atmosphere.store import Store

MAX_PASSAGES = 20_000      # of all folders: 31 MB of vectors and up to 16 MB of text in memory, 3 ms per search
MAX_REPORTED_SKIPS = 200   # a report is for people
EMBED_AT_ONCE = 32         # passages between two chances to cancel: a quarter of a second
MAX_QUERY_CHARS = 8_000    # the model reads some 1,200; the words beyond still count in the word index


class KnowledgeError(Exception):
    """A folder cannot be indexed or is not known; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one indexing of a folder did, in documents."""

    path: str
    added: int
    updated: int
    unchanged: int
    removed: int
    """Indexed earlier, now gone, or no longer readable."""
    passages: int
    """In this folder afterwards."""
    skipped: tuple[Skipped, ...] = ()
    """The first MAX_REPORTED_SKIPS files and folders that were left out, with the reason."""
    skipped_count: int = 0


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """An indexed folder (or single file)."""

    path: str
    name: str
    files: int
    passages: int
    indexed_at: float
    """Unix seconds of the newest document in the index."""
    missing: bool
    """It is not there now (a disk that is not mounted?). Its passages are kept and still answer."""


@dataclass(slots=True)
class _Run:
    """One indexing under way."""

    root: Path
    known: dict[str, bytes]
    """Digest of every document of the folder that is in the index and not seen yet."""
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0

    def skip(self, skipped: Skipped) -> None:
        self.skipped_count += 1
        if len(self.skipped) < MAX_REPORTED_SKIPS:
            self.skipped.append(skipped)


def list_folders(store: Store) -> list[FolderInfo]:
    """The indexed folders by path. Blocking; needs no embedder."""
    query = (
        "SELECT folder, COUNT(DISTINCT documents.path), COUNT(passages.id), MAX(indexed_at) "
        "FROM documents LEFT JOIN passages ON passages.path = documents.path GROUP BY folder ORDER BY folder"
    )
    rows = store.read_now(lambda connection: connection.execute(query).fetchall())
    return [
        FolderInfo(folder, _name(Path(folder)), files, passages, indexed_at, not Path(folder).exists())
        for folder, files, passages, indexed_at in rows
    ]


class Knowledge:
    """Text, Markdown and PDF folders in the node's database, searchable.

    Guarantees: a document changes in the index as a whole, in one transaction, and what an interrupted indexing has
    done stays done. Unchanged files are not embedded again. Links are not followed out of a folder. Searches see the
    index as it was before or after an indexing, never a part.

    Its methods block (disk and CPU), except :meth:`index`: a node calls them through ``Env.run_blocking``, a
    command-line tool directly. They may be called from several threads.
    """

    def __init__(self, store: Store, embedder: Embedder, env: Env) -> None:
        self._store = store
        self._embedder = embedder
        self._env = env
        self._index: PassageIndex | None = None
        self._loading = threading.Lock()  # held from reading to putting in place: the newest reading wins

    def __repr__(self) -> str:
        return f"<Knowledge {self._index!r} in {self._store!r}>"

    def add(self, path: Path) -> IndexReport:
        """Index the folder or file *path*; again, to take in what changed. About 5 ms per new passage.

        Raises :class:`KnowledgeError` when there is nothing at *path*, or it lies inside a folder indexed already.
        A folder that contains indexed ones takes them over.
        """
        run = self._begin(path)
        for _ in self._steps(run):
            pass
        return self._finish(run)

    async def index(self, path: Path) -> IndexReport:
        """:meth:`add` for a running node: in small steps off the event loop.

        Cancelling it takes effect within a second and leaves whole documents in the index.
        """
        run = await self._env.run_blocking(lambda: self._begin(path))
        steps = self._steps(run)
        while await self._env.run_blocking(lambda: next(steps, None)) is not None:
            pass
        return await self._env.run_blocking(lambda: self._finish(run))

    def refresh(self) -> list[IndexReport]:
        """:meth:`add` for every indexed folder that is there."""
        return [self.add(Path(folder.path)) for folder in self.list() if not folder.missing]

    def list(self) -> list[FolderInfo]:
        """The indexed folders by path."""
        return list_folders(self._store)

    def remove(self, path: Path) -> int:
        """Forget the indexed folder *path*; its files stay. Returns the documents forgotten.

        Raises :class:`KnowledgeError` when it is not an indexed folder.
        """
        folder = str(path.absolute())
        delete = "DELETE FROM documents WHERE folder IN (?, ?)"
        with self._loading:
            count = self._store.write_now(
                lambda connection: connection.execute(delete, (folder, str(path.resolve()))).rowcount
            )
            self._index = None
        if not count:
            raise KnowledgeError(f"{folder} is not an indexed folder: `knowledge list` shows them")
        return count

    def snapshot(self) -> PassageIndex:
        """Everything that is indexed in this embedder's space, read from the database when it has changed."""
        with self._loading:
            if self._index is None:
                self._index = self._load()
            return self._index

    @property
    def loaded(self) -> PassageIndex | None:
        """The index if it is in memory and current; None: :meth:`snapshot` would read the database."""
        return self._index

    def search(self, query: str, k: int = 5) -> Sequence[Hit]:
        """The *k* passages closest to *query*, best first. 3 ms for the embedding and up to 3 for the scan."""
        query = query[:MAX_QUERY_CHARS]
        return self.snapshot().search(query, self._embedder.embed([query])[0], k)

    def _begin(self, path: Path) -> _Run:
        root = path.resolve()
        if not (root.is_dir() or root.is_file()):
            raise KnowledgeError(f"{path} is not there: name a folder, or a text, Markdown or PDF file")
        if not is_utf8(root):
            raise KnowledgeError(f"{root!r} is not valid UTF-8: rename it")
        for folder in self.list():
            if root != Path(folder.path) and root.is_relative_to(folder.path):
                raise KnowledgeError(f"{root} is part of {folder.path} already: add that again to take in changes")
        inside = [(str(root), f.path) for f in self.list() if Path(f.path).is_relative_to(root)]
        adopt = "UPDATE documents SET folder = ? WHERE folder = ?"
        self._store.write_now(lambda connection: connection.executemany(adopt, inside))
        # A document whose passages are of another space counts as unknown: it is embedded again.
        query = (
            "SELECT path, CASE WHEN EXISTS (SELECT 1 FROM passages WHERE path = documents.path AND space <> ?) "
            "THEN x'' ELSE digest END FROM documents WHERE folder = ?"
        )
        key = (self._embedder.space.name, str(root))
        return _Run(root, dict(self._store.read_now(lambda connection: connection.execute(query, key).fetchall())))

    def _steps(self, run: _Run) -> Iterator[Path]:
        """Index one file, or EMBED_AT_ONCE passages of a long one, per step."""
        for path in find_files(run.root, run.skip):
            try:
                yield from self._take_in(run, path)
            except Unreadable as reason:
                shown = path.name if path == run.root else path.relative_to(run.root).as_posix()
                run.skip(Skipped(shown, str(reason)))
            yield path

    def _take_in(self, run: _Run, path: Path) -> Iterator[Path]:
        data = read_bytes(path)
        digest = digest_of(path, data)
        known = run.known.get(str(path))
        if known == digest:
            run.unchanged += 1
            del run.known[str(path)]
            return
        passages = split_document(path, data)
        (count,) = self._store.read_now(
            lambda connection: connection.execute(
                "SELECT COUNT(*) FROM passages WHERE path <> ?", (str(path),)
            ).fetchone()
        )
        if count + len(passages) > MAX_PASSAGES:
            raise Unreadable(f"the index is full ({MAX_PASSAGES} passages on this node): remove a folder")
        texts = [_embedded_text(path, passage) for passage in passages]
        batches = []
        for start in range(0, len(texts), EMBED_AT_ONCE):
            batches.append(self._embedder.embed(texts[start : start + EMBED_AT_ONCE]))
            yield path
        vectors = np.concatenate(batches)
        space = self._embedder.space.name

        def replace(connection: Connection) -> None:
            connection.execute("DELETE FROM documents WHERE path = ?", (str(path),))
            connection.execute(
                "INSERT INTO documents (path, folder, digest, indexed_at) VALUES (?, ?, ?, ?)",
                (str(path), str(run.root), digest, self._env.now()),
            )
            connection.executemany(
                "INSERT INTO passages (path, position, locator, text, space, vector) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (str(path), position, passage.locator, passage.text, space, vector.astype("<f4").tobytes())
                    for position, (passage, vector) in enumerate(zip(passages, vectors, strict=True))
                ],
            )

        self._store.write_now(replace)
        if known is None:
            run.added += 1
        else:
            run.updated += 1
            del run.known[str(path)]

    def _finish(self, run: _Run) -> IndexReport:
        """Forget the documents that were not seen, and put the new index in place."""
        gone = [(path,) for path in run.known]
        run.removed = len(gone)
        self._store.write_now(
            lambda connection: connection.executemany("DELETE FROM documents WHERE path = ?", gone)
        )
        if run.added or run.updated or run.removed:
            with self._loading:
                self._index = self._load()
        (passages,) = self._store.read_now(
            lambda connection: connection.execute(
                "SELECT COUNT(*) FROM passages JOIN documents USING (path) WHERE folder = ?", (str(run.root),)
            ).fetchone()
        )
        return IndexReport(
            str(run.root), run.added, run.updated, run.unchanged, run.removed, passages,
            tuple(run.skipped), run.skipped_count,
        )

    def _load(self) -> PassageIndex:
        space = self._embedder.space
        query = (
            "SELECT folder, path, locator, text, vector FROM passages JOIN documents USING (path) "
            "WHERE space = ? AND length(vector) = ? ORDER BY path, position"
        )
        key = (space.name, space.dimensions * 4)
        rows = self._store.read_now(lambda connection: connection.execute(query, key).fetchall())
        vectors = np.frombuffer(b"".join(row[4] for row in rows), dtype="<f4").reshape(len(rows), space.dimensions)
        entries = []
        for folder, path, locator, text, _ in rows:
            name = _name(Path(folder))
            source = name if path == folder else f"{name}/{Path(path).relative_to(folder).as_posix()}"
            entries.append(Entry(name, source, locator, text))
        return PassageIndex(entries, vectors)


def _name(folder: Path) -> str:
    return folder.name or "files"  # the root folder has no name


def _embedded_text(path: Path, passage: Passage) -> str:
    """The passage with what its reader would know: the document and the headings above it."""
    return f"{' > '.join([path.stem, *passage.headings])}\n{passage.text}"
