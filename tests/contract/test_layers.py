"""The layer law: imports point down only, and each dangerous call stands in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmount

PACKAGE = Path(fsmount.__file__).parent
# A package may import itself and the packages named here.
PACKAGES: dict[str, set[str]] = {
    "folder": set(),
    "errors": {"folder"},
    "quoting": set(),
    "refused": set(),
    "lru": set(),
    "caches": set(),
    "threads": set(),
    "codec": {"errors", "folder", "lru"},
    "work": {"codec", "errors", "folder", "lru"},
    "legacy": {"work", "codec", "errors", "lru", "threads"},
    "store": {"legacy", "work", "codec", "errors", "folder", "refused", "lru", "threads"},
    # What lies elsewhere is made of what a store has.
    "remote": {"store", "codec", "errors", "folder", "threads"},
    # Words in pictures. It stands on stores, and neither mounts nor prints.
    "text": {"store", "codec", "errors", "lru"},
    "mount": {"text", "store", "work", "codec", "errors", "folder", "quoting", "threads"},
    "adopt": {"mount", "store", "legacy", "errors"},
    "desktop": {"store", "work", "errors"},
    "timelapse": {"store", "errors"},
    # `album` stands beside the store. It shares workers and caches with it, never files.
    "album": {"work", "codec", "errors", "refused", "threads"},
    # Units of systemd and links for mount(8). It knows the program, not what it does.
    "system": {"errors"},
    # The page shows stores and albums; nothing in it changes one.
    "web": {"album", "mount", "text", "store", "work", "codec", "errors", "caches", "threads"},
    "cli": {
        "adopt",
        "desktop",
        "system",
        "web",
        "mount",
        "album",
        "timelapse",
        "remote",
        "text",
        "store",
        "legacy",
        "work",
        "codec",
        "errors",
        "folder",
        "caches",
        "quoting",
    },
    # The package itself holds the version. Every package may import it.
    "__init__": set(),
    "__main__": {"cli"},
}
# The parts of a package from the lowest up. A part may import itself and the parts before it.
PARTS: dict[str, tuple[str, ...]] = {
    "codec": ("_kernel", "memory", "zstd", "deflate", "png", "images", "delta"),
    "store": (
        "disk",
        "index",
        "layout",
        "pushed",
        "config",
        "elsewhere",
        "contents",
        "statistics",
        "lock",
        "ownership",
        "owned_tasks",
        "packs",
        "files",
        "frames",
        "retention",
        "read_store",
        "ingest",
        "maintenance",
        "writable_store",
        "recovery",
        "store",
        "transfer",
        # These two work on an open store. The rest of recovery/ opens one.
        "recovery/check",
        "recovery/repair",
    ),
}
# Library -> the only modules or packages that may import it.
ONLY = {
    "pyfuse3": {"mount/fuse.py"},
    "pyfuse3_asyncio": set(),
    "jxlpy": {"codec/images/jxl.py"},
    "imagecodecs": {"codec/images/extra.py"},
    "zstandard": {"codec/zstd.py"},
    # fuse.py and app.py translate errors of the index, for the kernel and for people.
    "apsw": {
        "store/index/__init__.py",
        "store/index/database.py",
        "text/connection.py",
        "mount/fuse.py",
        "cli/app.py",
    },
    "sqlite3": set(),
    "zfec": {"store/packs/parity.py"},
    "obstore": {"remote/s3.py"},
    "cryptography": {"remote/encryption/sealing.py"},
    "boto3": {"remote/glacier.py"},
    "botocore": {"remote/glacier.py"},
    "pyrage": {"remote/encryption/age.py"},
    "av": {"album/video.py", "timelapse/writers.py"},
    "pillow_heif": {"album/photos.py"},
    "starlette": {"web"},
    "hypercorn": {"web/serving.py"},
    "rapidocr": {"text/rapidocr.py"},
    "click": {"cli"},
    "rich": {"cli"},
}
# Names of calls that change files. In store/ only disk.py may use them.
CHANGES = {
    "rename",
    "renames",
    "replace",
    "unlink",
    "remove",
    "rmdir",
    "removedirs",
    "mkdir",
    "makedirs",
    "link",
    "symlink",
    "fsync",
    "fdatasync",
    "sync",
    "truncate",
    "ftruncate",
    "write",
    "pwrite",
    "writev",
    "pwritev",
    "sendfile",
    "copy_file_range",
    "posix_fallocate",
    "mknod",
    "mkfifo",
    "chmod",
    "fchmod",
    "chown",
    "fchown",
    "lchown",
    "utime",
    "setxattr",
    "removexattr",
    "write_bytes",
    "write_text",
    "touch",
    "hardlink_to",
    "symlink_to",
    "rmtree",
    "copy",
    "copyfile",
    "copy2",
    "move",
    "mkstemp",
    "mkdtemp",
}
# Allowed exceptions: (module, function of CHANGES or "open").
EXCEPTIONS = {
    # The lock file holds no stored data.
    ("store/lock.py", "open"),
    ("store/lock.py", "ftruncate"),
    ("store/lock.py", "pwrite"),
    # The estimate makes a temporary store of its own.
    ("store/transfer/estimating.py", "open"),
    # A picture in memory.
    ("store/frames/previews.py", "open"),
    # An imported source is no part of the store.
    ("store/transfer/deleting.py", "unlink"),
}
# These modules write the exported files, which are outside the store.
OUTSIDE = {"store/transfer/exporting.py"}
# The database of words is another one than the index.
TEXT_SQL = {"text/connection.py", "text/token_index.py", "text/database.py"}
SQL = ("SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "PRAGMA ", "CREATE TABLE", "BEGIN IMMEDIATE")

# share/ holds files for users, among them unpack.py, which is no module of the package.
MODULES = sorted(set(PACKAGE.rglob("*.py")) - set(PACKAGE.glob("share/*")))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def inside(name: str) -> list[str]:
    """The path of a module within its package."""
    return name.removesuffix(".py").split("/")[1:]


def package_of(name: str) -> str:
    return name.removesuffix(".py").split("/", maxsplit=1)[0]


def part_of(package: str, inner: list[str]) -> str:
    """The part of a package that a module belongs to; "" for `__init__` of the package."""
    order = PARTS.get(package, ())
    inner = [name for name in inner if name != "__init__"]
    module = "/".join(inner[:2])
    return module if module in order else inner[0] if inner else ""


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports in a module, at any place. Relative imports are not allowed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert node.module is not None
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node.args[0]).strip("'\"")


def is_wrong(name: str, target: list[str]) -> bool:
    """Whether a module may not import `fsmount.<target>`."""
    package, wanted = package_of(name), target[0]
    if wanted != package:
        return wanted in PACKAGES and wanted not in PACKAGES[package]
    order = PARTS.get(package, ())
    part = part_of(package, target[1:])
    return part in order and order.index(part) > order.index(part_of(package, inside(name)))


def wrong_imports(name: str, tree: ast.AST) -> list[str]:
    package = package_of(name)
    wrong = []
    for found in imports(tree):
        top, _, rest = found.partition(".")
        if top == "fsmount" and rest:
            if is_wrong(name, rest.split(".")):
                wrong.append(found)
        elif top in ONLY and name not in ONLY[top] and package not in ONLY[top]:
            wrong.append(found)
    return wrong


def writes(call: ast.Call) -> bool:
    """Whether an `open` may change a file: its mode is not a constant for reading."""
    name = ast.unparse(call.func)
    if name == "os.open":
        return True
    at = 1 if name == "open" else 0
    mode = call.args[at] if len(call.args) > at else None
    for keyword in call.keywords:
        if keyword.arg == "mode":
            mode = keyword.value
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and mode.value in ("r", "rb", "rt"))


def is_disk(call: ast.Call) -> bool:
    """Whether a call is a method of a Disk."""
    assert isinstance(call.func, ast.Attribute)
    owner = ast.unparse(call.func.value)
    return owner.split(".")[-1] in ("disk", "_disk")


def changes(name: str, tree: ast.AST) -> list[str]:
    """Calls that change files and bypass the Disk."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        last = function.split(".")[-1]
        if last == "open":
            if isinstance(node.func, ast.Attribute) and (is_disk(node) or "staging" in function):
                continue
            bad = writes(node)
        elif isinstance(node.func, ast.Attribute) and not is_disk(node):
            owner = function.rsplit(".", maxsplit=1)[0]
            # These are methods of fsmount with such names, or methods of strings.
            ours = owner.split(".")[-1] in ("self", "index", "_index", "staging", "_staging", "str")
            bad = last in CHANGES and not ours
            bad = bad and not (last == "fsync" and owner in ("pack", "self._pack"))
            bad = bad and not (last == "replace" and len(node.args) == 2 and owner != "os")
            bad = bad and not (last == "copy" and not node.args)
        else:
            bad = False
        if bad and (name, last) not in EXCEPTIONS:
            found.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    package = package_of(name_of(path))
    part = part_of(package, inside(name_of(path)))
    assert package in PACKAGES, "a package that the law does not know"
    assert not part or package not in PARTS or part in PARTS[package], "an unknown part"
    assert wrong_imports(name_of(path), ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sql_stands_in_the_index(path: Path) -> None:
    if name_of(path).startswith("store/index/") or name_of(path) in TEXT_SQL:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.startswith(SQL), f"line {node.lineno}"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if package_of(name_of(path)) == "store"], ids=name_of
)
def test_the_store_is_changed_through_the_disk(path: Path) -> None:
    if name_of(path) == "store/disk/disk.py" or name_of(path) in OUTSIDE:
        return
    assert changes(name_of(path), ast.parse(path.read_text())) == []


# -- the law finds offences


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("codec/x.py", "from fsmount.store.index import Index"),
        ("codec/x.py", "from fsmount import store"),
        ("store/index/x.py", "from fsmount.store.packs import pack"),
        ("store/packs/x.py", "from fsmount.store.frames.reader import Reader"),
        ("store/ingest/x.py", "import fsmount.store.store"),
        ("store/store.py", "from fsmount.store.recovery import repair"),
        ("codec/deflate/x.py", "from fsmount.codec.png import png"),
        ("codec/x.py", "import fsmount.mount.store_fs"),
        ("store/x.py", "def f():\n    from fsmount.mount import vfs"),
        ("store/x.py", "if TYPE_CHECKING:\n    import fsmount.cli.main"),
        ("store/x.py", "import importlib\nimportlib.import_module('fsmount.mount')"),
        ("mount/x.py", "from fsmount.album import x"),
        ("album/x.py", "from fsmount.mount import x"),
        ("album/x.py", "from fsmount.store import x"),
        ("album/jobs.py", "import av"),
        ("store/x.py", "from fsmount.remote import x"),
        ("remote/transport.py", "import obstore"),
        ("remote/encryption/ring.py", "import pyrage"),
        ("remote/thawing.py", "import boto3"),
        ("remote/opening.py", "from cryptography.hazmat.primitives import hashes"),
        ("mount/x.py", "from fsmount.cli import x"),
        ("errors.py", "from fsmount.codec import x"),
        ("store/x.py", "import pyfuse3"),
        ("mount/session.py", "import pyfuse3"),
        ("codec/images/webp.py", "import jxlpy"),
        ("store/frames/jobs.py", "import imagecodecs"),
        ("store/packs/pack.py", "from apsw import Connection"),
        ("mount/store_fs.py", "import apsw"),
        ("store/x.py", "import sqlite3"),
        ("store/x.py", "import rich.console"),
    ],
)
def test_a_wrong_arrow_is_found(name: str, line: str) -> None:
    assert wrong_imports(name, ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "os.rename(a, b)",
        "os.replace(a, b)",
        "path.rename(b)",
        "path.replace(b)",
        "path.unlink()",
        "os.fsync(fd)",
        "os.open(path, 0)",
        "open(path, 'wb')",
        "open(path, mode='a')",
        "open(path, mode)",
        "path.open('r+b')",
        "path.write_bytes(b'')",
        "path.mkdir()",
        "shutil.rmtree(path)",
        "os.pwrite(fd, b'', 0)",
        "os.truncate(path, 0)",
        "path.chmod(0)",
    ],
)
def test_a_change_past_the_disk_is_found(line: str) -> None:
    assert changes("store/x.py", ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "self._disk.unlink(path)",
        "disk.rename(a, b)",
        "open(path)",
        "path.open('rb', buffering=0)",
        "'a'.replace('b', 'c')",
        "replace(plan, tiles=tiles)",
        "array.copy()",
        "os.pread(fd, 1, 0)",
    ],
)
def test_what_changes_nothing_is_let_alone(line: str) -> None:
    assert changes("store/x.py", ast.parse(line)) == []
