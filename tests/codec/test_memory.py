"""A worker keeps its caches in one object, within one budget."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fsmount
from fsmount.codec.memory import WorkerMemory, of_worker
from fsmount.lru import Lru
from tests.support.encoding import forget_caches

PACKAGE = Path(fsmount.__file__).parent


def test_a_process_has_one_and_a_new_process_another() -> None:
    first = of_worker()
    assert of_worker() is first
    forget_caches()
    assert of_worker() is not first


def test_jobs_of_a_store_and_of_a_folder_in_turn() -> None:
    memory = WorkerMemory()
    memory.share_for_runs(1000)
    assert (memory.runs.budget, memory.streams.budget) == (1000, 250)
    memory.streams.resize(500)
    # The budget of the runs is unchanged, so the streams keep their budget.
    memory.share_for_runs(1000)
    assert (memory.runs.budget, memory.streams.budget) == (1000, 500)


def test_less_room_takes_what_was_used_longest_ago() -> None:
    kept: Lru[str, int] = Lru(10)
    for number, name in enumerate("abc"):
        kept.put(name, number, 3)
    kept.get("a")
    kept.resize(6)
    assert [name in kept for name in "abc"] == [True, False, True]
    kept.resize(0)
    assert (len(kept), kept.used) == (0, 0)


def keeps(tree: ast.Module) -> list[str]:
    """Caches made while a module is imported: at its top or in the body of a class."""
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    made = [one for body in bodies for one in body if isinstance(one, ast.Assign | ast.AnnAssign)]
    text = [ast.unparse(one) for one in made if isinstance(one.value, ast.Call)]
    return [one for one in text if "Lru(" in one or "OrderedDict(" in one]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_module_keeps_a_cache_of_its_own(path: Path) -> None:
    assert keeps(ast.parse(path.read_text())) == []


def test_such_a_cache_is_found() -> None:
    assert keeps(ast.parse("_newest: Lru[str, int] = Lru(5)"))
    assert keeps(ast.parse("class Reader:\n    layers = Lru(0)"))
    assert not keeps(ast.parse("class Reader:\n    def f(self):\n        self.layers = Lru(0)"))
