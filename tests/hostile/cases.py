"""The table: what attackers send to a node, at which door, and the code that each gets.

A case is (door, name, expected code, words that the reason must contain, the attack). Attacks are functions of a fresh
:class:`~tests.hostile.house.House`. Importing the files below fills the table.
"""

from __future__ import annotations

from tests.hostile import cases_failure, cases_join, cases_records, cases_statements, cases_streams
from tests.hostile.attack import CASES, Case

__all__ = ["CASES", "Case", "cases_failure", "cases_join", "cases_records", "cases_statements", "cases_streams"]
