"""Answers from the owner's own documents: folders in, quoted passages with their sources out."""

from atmosphere.knowledge.backend import KnowledgeBackend
from atmosphere.knowledge.files import Skipped
from atmosphere.knowledge.knowledge import FolderInfo, IndexReport, Knowledge, KnowledgeError, list_folders
from atmosphere.knowledge.ranking import Entry, Hit

__all__ = [
    "Entry",
    "FolderInfo",
    "Hit",
    "IndexReport",
    "Knowledge",
    "KnowledgeBackend",
    "KnowledgeError",
    "Skipped",
    "list_folders",
]
