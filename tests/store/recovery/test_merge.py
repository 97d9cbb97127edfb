"""Plans of a repair from invented facts, without a store or a disk."""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.index import ROOT, Inode, Object
from fsmount.store.maintenance.copies import IndexRows
from fsmount.store.recovery.merge import (
    LostFile,
    NewIndex,
    Removal,
    can_heal,
    plan_index,
    plan_removal,
)
from fsmount.store.recovery.scan import (
    Condition,
    DescribedFile,
    EntryPlace,
    IndexFacts,
    Replica,
    StagedFile,
    StoreFacts,
    UnusableEntry,
)
from tests.support.rows import an_object

UID, GID, NOW = 11, 22, 33
FILE, FOLDER = stat.S_IFREG | 0o640, stat.S_IFDIR | 0o750


def inode(ino: int, mode: int = FILE, **values: int) -> Inode:
    node = Inode(ino, mode, 1, 2, 1, 5, 0, 3, 3, 3, None, None, None)
    return node._replace(**values)  # type: ignore[arg-type]


def stored(number: int, pack: int = 1, *, needs: tuple[int, ...] = ()) -> Object:
    return Object(number, "raw", pack, 100 * number, 100, 5, b"%032d" % number, 0, needs)


def entry(number: int, pack: int = 1) -> EntryPlace:
    return EntryPlace(number, pack, 100 * number, 100)


def described(number: int, path: bytes, pack: int = 1) -> DescribedFile:
    return DescribedFile(entry(number, pack), path, 44, 7, b"%032d" % number, "raw")


def facts(
    rows: IndexRows,
    entries: Iterable[EntryPlace] = (),
    descriptions: Iterable[DescribedFile | UnusableEntry] = (),
    staged: Iterable[int] = (),
) -> StoreFacts:
    entries = tuple(entries)
    packs: dict[int, int] = {}
    for each in entries:
        packs[each.pack] = max(packs.get(each.pack, 0), each.offset + each.length)
    files = tuple(StagedFile(token, 9, 55) for token in staged)
    return StoreFacts(rows, entries, packs, tuple(descriptions), files, 4, UID, GID, NOW)


def tree(plan: NewIndex) -> dict[bytes, Inode]:
    """The inodes by path that a plan gives, from the root on. Every named parent is a folder."""
    nodes = {node.ino: node for node in plan.rows.inodes}
    assert len(nodes) == len(plan.rows.inodes)
    children: dict[int, list[tuple[bytes, int]]] = {}
    for folder, name, ino in plan.rows.names:
        assert stat.S_ISDIR(nodes[folder].mode)
        children.setdefault(folder, []).append((name, ino))
    found: dict[bytes, Inode] = {}
    todo = [(b"", ROOT)]
    while todo:
        above, folder = todo.pop()
        for name, ino in children.get(folder, ()):
            path = above + b"/" * bool(above) + name
            assert path not in found
            found[path] = nodes[ino]
            todo.append((path, ino))
    return found


# -- a new index, by example


def test_nothing_known_is_an_empty_store() -> None:
    plan = plan_index(facts(IndexRows()))
    assert [node.ino for node in plan.rows.inodes] == [ROOT]
    (root,) = plan.rows.inodes
    assert (root.mode, root.uid, root.gid, root.mtime_ns) == (0o40755, UID, GID, NOW)
    assert (plan.packs, plan.renamed, plan.lost) == ({}, (), ())


def test_rows_of_the_copy_stay_as_they_are() -> None:
    rows = IndexRows(
        opened=3,
        next_object=5,
        inodes=[inode(ROOT, FOLDER), inode(7, object_id=2), inode(8, FOLDER)],
        names=[(ROOT, b"folder", 8), (8, b"a", 7), (8, b"b", 7)],
        xattrs=[(7, b"user.x", b"y")],
        objects=[stored(2)],
    )
    plan = plan_index(facts(rows, [entry(2)]))
    assert plan.rows == replace(rows, opened=4)
    assert plan.packs == {1: 300}


def test_an_object_is_where_its_entry_was_moved_to() -> None:
    rows = IndexRows(next_object=5, objects=[stored(1), stored(2), stored(3)])
    moved = [entry(1, 1), entry(1, 2), entry(2, 2)]
    plan = plan_index(facts(rows, moved))
    # Object 1 also has an entry at its old place. Object 3 has no entry.
    assert [found.pack for found in plan.rows.objects] == [1, 2, 1]
    assert plan.packs == {1: 400, 2: 300}, "an object that is damaged belongs to its pack"


def test_a_file_that_waited_gets_the_object_that_was_encoded_since() -> None:
    rows = IndexRows(
        next_object=5,
        inodes=[inode(ROOT, FOLDER), inode(2, staged=9)],
        names=[(ROOT, b"a", 2)],
    )
    plan = plan_index(facts(rows, [entry(5)], [described(5, b"a")]))
    assert tree(plan) == {b"a": inode(2, object_id=5, size=7)}
    assert (plan.renamed, plan.lost, plan.rows.next_object) == ((), (), 6)


def test_a_file_that_still_waits_keeps_its_name() -> None:
    rows = IndexRows(inodes=[inode(ROOT, FOLDER), inode(2, staged=9)], names=[(ROOT, b"a", 2)])
    plan = plan_index(facts(rows, [entry(5)], [described(5, b"a")], staged=[9]))
    assert {path: node.object_id for path, node in tree(plan).items()} == {
        b"a": None,
        b"a.recovered-5": 5,
    }


def test_a_later_file_has_the_name_of_its_entry() -> None:
    plan = plan_index(facts(IndexRows(), [entry(5)], [described(5, b"b/a")]))
    found = tree(plan)
    assert (found[b"b"].mode, found[b"b"].uid) == (0o40755, UID)
    node = found[b"b/a"]
    assert (node.mode, node.object_id, node.size, node.mtime_ns) == (0o100644, 5, 7, 44)
    assert plan.renamed == ("b/a",)


@pytest.mark.parametrize("given_paths", [[b"a", b"a", b"a.recovered-2"], [b"a/b", b"a/b", b"a"]])
def test_no_file_takes_the_name_of_another(given_paths: list[bytes]) -> None:
    rows = IndexRows(
        inodes=[inode(ROOT, FOLDER), inode(2, object_id=1)],
        names=[(ROOT, b"a", 2)],
        objects=[stored(1)],
        next_object=2,
    )
    later = [described(number, path) for number, path in enumerate(given_paths, 2)]
    plan = plan_index(facts(rows, [entry(n) for n in range(1, 5)], later))
    files = {node.object_id: path for path, node in tree(plan).items() if node.object_id}
    assert files[1] == b"a"
    assert set(files) == {1, 2, 3, 4}
    assert set(plan.renamed) == {os.fsdecode(files[number]) for number in (2, 3, 4)}


def test_staged_files_without_a_row_keep_their_bytes() -> None:
    plan = plan_index(facts(IndexRows(), staged=[8]))
    node = tree(plan)[b"lost+found/staged-8"]
    assert (node.staged, node.size, node.mtime_ns) == (8, 9, 55)
    assert plan.renamed == ("lost+found/staged-8",)


def test_files_without_content_are_listed_with_all_their_names() -> None:
    rows = IndexRows(
        next_object=5,
        inodes=[
            inode(ROOT, FOLDER),
            inode(2, FOLDER),
            inode(3, staged=9),
            inode(4, object_id=3),
        ],
        names=[(ROOT, b"d", 2), (2, b"a", 3), (ROOT, b"b", 3), (2, b"c", 4)],
        xattrs=[(3, b"user.x", b"")],
    )
    row = an_object(7, sha256=b"")
    unusable = [UnusableEntry(6, "object 6", "cut off"), UnusableEntry(7, "b", "needs 6", row)]
    plan = plan_index(facts(rows, descriptions=unusable))
    # Others may need the pixels of object 7, or its record.
    assert [found.id for found in plan.rows.objects if found.is_layer_only] == [7]
    assert tree(plan).keys() == {b"d"}
    assert plan.lost == ("object 6: cut off", "b: needs 6", "d/a", "b", "d/c")
    assert plan.rows.xattrs == []


def test_a_name_in_no_folder_moves() -> None:
    rows = IndexRows(
        inodes=[inode(ROOT, FOLDER), inode(5, object_id=1), inode(6, FOLDER)],
        names=[(99, b"a", 5), (5, b"folder", 6), (6, b"again", 5)],
        objects=[stored(1)],
        next_object=2,
    )
    plan = plan_index(facts(rows))
    found = tree(plan)
    assert found[b"lost+found/inode-5"] == found[b"lost+found/inode-6/again"] == rows.inodes[1]
    assert plan.renamed == ("lost+found/inode-5", "lost+found/inode-6")


# -- a new index, by its properties

NAMES = st.sampled_from([b"a", b"b", b"a.folder", b"a.recovered-5", b"lost+found", b"staged-3"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


@st.composite
def stores(draw: st.DrawFn) -> StoreFacts:
    """A copy of any age, whole or not, and other content of packs and staging."""
    next_object = draw(st.integers(1, 5))
    entries = draw(
        st.lists(st.builds(entry, st.integers(1, 8), st.integers(1, 2)), unique=True, max_size=10)
    )
    known = draw(st.sets(st.integers(1, 4), max_size=4))
    rows = IndexRows(opened=draw(st.integers(0, 9)), next_object=next_object)
    rows.objects = [stored(n, draw(st.integers(1, 3))) for n in sorted(known) if n < next_object]
    rows.inodes = [inode(ROOT, FOLDER)] if draw(st.booleans()) else []
    folders, taken = [ROOT], set[tuple[int, bytes]]()
    for ino in range(2, 2 + draw(st.integers(0, 7))):
        kind = draw(st.sampled_from(["folder", "staged", "object", "link", "gone"]))
        token, number = ino, draw(st.integers(1, 4))
        node = {
            "folder": inode(ino, FOLDER),
            "staged": inode(ino, staged=token),
            "object": inode(ino, object_id=number),
            "link": inode(ino, stat.S_IFLNK | 0o777),
            "gone": None,
        }[kind]
        rows.inodes += [] if node is None else [node]
        for _ in range(1 if kind == "folder" else draw(st.integers(1, 2))):
            place = draw(st.sampled_from([*folders, 99])), draw(NAMES)
            if place not in taken:
                taken.add(place)
                rows.names.append((*place, ino))
        folders += [ino] if kind == "folder" else []
    descriptions: list[DescribedFile | UnusableEntry] = []
    latest = {each.object_id: each for each in entries}
    for number in sorted(number for number in latest if number >= next_object):
        if draw(st.booleans()):
            descriptions.append(described(number, draw(PATHS), latest[number].pack))
        else:
            descriptions.append(UnusableEntry(number, f"object {number}", "told to"))
    staged = draw(st.sets(st.integers(1, 8), max_size=5))
    return facts(rows, entries, descriptions, sorted(staged))


@given(stores())
def test_facts_are_left_as_they_are_and_give_one_plan(known: StoreFacts) -> None:
    before = copy.deepcopy(known)
    plan = plan_index(known)
    assert known == before
    assert plan_index(known) == plan


@given(stores())
def test_the_plan_of_what_was_planned_is_the_same(known: StoreFacts) -> None:
    plan = plan_index(known)
    later = [found for found in known.descriptions if isinstance(found, DescribedFile)]
    again = plan_index(replace(known, copy=plan.rows, descriptions=tuple(later)))
    assert again == NewIndex(plan.rows, plan.packs, (), ())


@given(stores())
def test_no_file_of_which_there_is_content_is_dropped(known: StoreFacts) -> None:
    plan = plan_index(known)
    shown = tree(plan)
    inodes = {node.ino: node for node in shown.values()}
    objects = {found.id: found for found in plan.rows.objects}
    tokens = {file.token for file in known.staged}
    names = {(folder, name): ino for folder, name, ino in plan.rows.names}
    folders = {node.ino for node in known.copy.inodes if stat.S_ISDIR(node.mode)}
    folders = {ROOT, *(folders & {ino for _, _, ino in known.copy.names})}

    # A file that the copy names is there with its content, unless that content is nowhere.
    for node in known.copy.inodes:
        named = [(folder, name) for folder, name, ino in known.copy.names if ino == node.ino]
        lost = node.staged is not None and node.staged not in tokens
        lost |= node.object_id is not None and node.object_id not in objects
        if not lost and (named or node.ino == ROOT):
            assert node.ino == ROOT or inodes[node.ino] == node
            assert all(names[place] == node.ino for place in named if place[0] in folders)
        elif lost and named and node.ino not in inodes:
            assert len(plan.lost) >= len(named)
        elif lost and named:
            # The file waited to be encoded, and the repair found its object.
            assert inodes[node.ino].object_id in objects

    # Every object that is newer than the copy has a file.
    contents = {node.object_id for node in shown.values()}
    later = {d.place.object_id for d in known.descriptions if isinstance(d, DescribedFile)}
    assert later <= contents
    unlinked = {
        node.staged
        for node in known.copy.inodes
        if node.ino not in {ino for _, _, ino in known.copy.names}
    }
    assert tokens - unlinked <= {node.staged for node in shown.values()}
    assert objects.keys() == {found.id for found in known.copy.objects} | later


@given(stores())
def test_objects_are_where_entries_are(known: StoreFacts) -> None:
    plan = plan_index(known)
    for found in plan.rows.objects:
        places = [each for each in known.entries if each.object_id == found.id]
        here = EntryPlace(found.id, found.pack, found.offset, found.length)
        assert here in places or not places
        assert found.pack not in plan.packs or plan.packs[found.pack] >= found.offset + 100
    assert all(plan.packs[number] >= end for number, end in known.packs.items())
    assert all(each.object_id < plan.rows.next_object for each in known.entries)
    assert plan.rows.opened == max(known.opened, known.copy.opened)


# -- removals from a readable index


def index_facts(
    objects: Iterable[Object] = (),
    inodes: Iterable[Inode] = (),
    conditions: dict[int, Condition] | None = None,
    staged: Iterable[int] = (),
    present: dict[int, int | None] | None = None,
) -> IndexFacts:
    objects, inodes = tuple(objects), tuple(inodes)
    return IndexFacts(
        objects={found.id: found for found in objects},
        inodes=inodes,
        paths={node.ino: (f"{node.ino}", f"{node.ino}.again") for node in inodes},
        staged=frozenset(staged),
        packs={1: 1000, 2: 1000},
        present={1: 1200, 2: 1000} | (present or {}),
        conditions=conditions or {},
    )


NOTHING = Removal((), (), (), {})


def test_a_whole_index_gives_up_nothing() -> None:
    nodes = [inode(ROOT, FOLDER), inode(2, object_id=1), inode(3, staged=4)]
    assert plan_removal(index_facts([stored(1)], nodes, staged=[4]), []) == NOTHING


@pytest.mark.parametrize("condition", Condition)
def test_only_damage_costs_a_name(condition: Condition) -> None:
    known = index_facts([stored(1)], [inode(2, object_id=1, mtime_ns=6)], {1: condition})
    plan = plan_removal(known, [1])
    if condition is not Condition.DAMAGED:
        assert plan == NOTHING
        return
    sha256 = (b"%032d" % 1).hex()
    files = tuple(LostFile(path, 5, 6, sha256, 1) for path in ("2", "2.again"))
    assert plan == Removal((2,), files, (1,), {})


def test_damage_costs_what_needs_it_and_nothing_else() -> None:
    objects = [stored(1), stored(2, needs=(1, 2)), stored(3, needs=(3,)), stored(4, needs=(2,))]
    nodes = [inode(10 + found.id, object_id=found.id) for found in objects]
    conditions = dict.fromkeys((1, 2, 4), Condition.WHOLE) | {1: Condition.DAMAGED}
    plan = plan_removal(index_facts(objects, nodes, conditions), [1, 2])
    assert plan.inodes == (11, 12)
    # The caller says that object 4 can still be rendered, and 4 needs 2.
    assert plan.objects == (1,)


def test_contents_that_do_not_exist_cost_a_name() -> None:
    nodes = [inode(2, object_id=9), inode(3, staged=9)]
    plan = plan_removal(index_facts([], nodes), [])
    assert plan.inodes == (2, 3)
    assert {(file.path, file.sha256, file.object) for file in plan.files} == {
        ("2", None, 9), ("2.again", None, 9), ("3", None, None), ("3.again", None, None),
    }  # fmt: skip


def test_packs_end_behind_their_last_object() -> None:
    known = index_facts([stored(1), stored(8, 2)], present={1: 50, 2: None})
    assert plan_removal(known, []).packs == {1: 200, 2: 900}
    assert plan_removal(index_facts(present={1: None}), []).packs == {1: None}


@st.composite
def indexes(draw: st.DrawFn) -> tuple[IndexFacts, set[int]]:
    """An index, and the objects that could not be rendered."""
    numbers = range(1, 1 + draw(st.integers(0, 6)))
    ids = st.sets(st.sampled_from(numbers), max_size=3) if numbers else st.just(set[int]())
    objects = [
        stored(n, draw(st.integers(1, 2)), needs=tuple(sorted(draw(ids) | {n}))) for n in numbers
    ]
    contents = st.one_of(
        st.builds(lambda n: {"object_id": n}, st.integers(1, 7)),
        st.builds(lambda n: {"staged": n}, st.integers(1, 3)),
        st.just({}),
    )
    nodes = [inode(ino, **draw(contents)) for ino in range(2, 2 + draw(st.integers(0, 5)))]
    conditions = {number: draw(st.sampled_from(Condition)) for number in numbers}
    sizes = st.one_of(st.none(), st.integers(0, 1500))
    present = {1: draw(sizes), 2: draw(sizes)}
    staged = draw(st.sets(st.integers(1, 3)))
    return index_facts(objects, nodes, conditions, staged, present), set(draw(ids))


@given(indexes())
def test_files_that_can_be_read_keep_their_names(case: tuple[IndexFacts, set[int]]) -> None:
    known, suspects = case
    plan = plan_removal(known, suspects)
    lost = {file.path for file in plan.files}
    for node in known.inodes:
        found = known.objects.get(node.object_id or 0)
        whole = found is not None and not any(
            known.conditions[number] is Condition.DAMAGED for number in (found.id, *found.needs)
        )
        unasked = found is not None and found.id not in suspects
        if whole or unasked or node.staged in known.staged or node.object_id is node.staged is None:
            assert node.ino not in plan.inodes
            assert not lost & set(known.paths[node.ino])
        else:
            assert set(known.paths[node.ino]) <= lost
    left = known.objects.keys() - set(plan.objects)
    for number in left - suspects:
        assert known.objects.keys() & set(known.objects[number].needs) <= left


@given(indexes())
def test_nothing_is_given_up_twice(case: tuple[IndexFacts, set[int]]) -> None:
    known, suspects = case
    plan = plan_removal(known, suspects)
    packs = {**known.packs, **plan.packs}
    after = replace(
        known,
        objects={n: found for n, found in known.objects.items() if n not in plan.objects},
        inodes=tuple(node for node in known.inodes if node.ino not in plan.inodes),
        packs={number: length for number, length in packs.items() if length is not None},
    )
    again = plan_removal(after, suspects & after.objects.keys())
    assert (again.inodes, again.files, again.objects) == ((), (), ())
    assert all(after.packs[number] == length for number, length in again.packs.items())


@pytest.mark.parametrize(("is_whole", "length", "wanted"), [
    (False, 100, True), (True, 100, False), (False, 99, False),
])  # fmt: skip
def test_only_damage_is_healed_with_bytes_that_fit(
    is_whole: bool, length: int, wanted: bool
) -> None:
    assert can_heal(Replica(stored(1), bytes(length), is_whole)) == wanted
