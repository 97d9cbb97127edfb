"""The code blocks of the pages work as they are written.

A page's blocks of shell commands are run in order, in a new home folder, with real mounts. Of
docs/commands.md, where examples are alternatives, each line is run by itself. `_NOT_RUN` has the
blocks that are not run here, each with its reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from fsmount.mount import mount_table
from tests.e2e.commands import well
from tests.e2e.mounts import missing
from tests.support.buckets import BUCKET, server
from tests.support.paths import CHECKOUT
from tests.support.photos import camera
from tests.support.remotes import SSH_PUBLIC, new_identity, public_key
from tests.support.trees import REAL

PAGES = ["README.md", "CONTRIBUTING.md", "contrib/suites/README.md"]
PAGES += sorted(f"docs/{path.name}" for path in (CHECKOUT / "docs").glob("*.md"))
_REFERENCE = "docs/commands.md"
# Languages of blocks that are no commands.
_OTHER = {"text", "json", "mermaid", "ini"}
# Folders of the system that pages name. Here they lie in the home folder.
_SYSTEM = re.compile(r"(?<![\w.~/$}])/(media|mnt|backup|tmp|data|srv)(?=[/\s]|$)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    found = re.findall(
        r"^```(\w*)\n(.*?)^```$", (CHECKOUT / page).read_text(), re.MULTILINE | re.DOTALL
    )
    return [Block(page, language, text) for language, text in found]


# -- blocks that are not run


def installs(text: str) -> bool:
    """Whether commands install packages of the system, also through scripts of ours."""
    if "apt-get" in text:
        return True
    named = set(re.findall(r"(?<![\w/])(?:contrib|\.ci)/\w+", text))
    return any(
        installs(re.sub(r"^\s*#.*", "", (CHECKOUT / name).read_text(), flags=re.MULTILINE))
        for name in named
        if name != text and (CHECKOUT / name).is_file()
    )


def is_long(text: str) -> bool:
    """Whether commands are benchmarks, or harnesses that run until a count or a time is reached."""
    return bool(re.search(r"python -m tests\.|\b(FSMOUNT_KILLS|SECONDS)=\d\d", text))


def is_for_the_system(text: str) -> bool:
    """Whether commands change folders of the system, or need mount(8) or a service manager."""
    return bool(re.search(r"mount -t|systemctl|journalctl|sudo |fsmount setup", text))


def is_recipe(text: str) -> bool:
    """Whether tests/e2e/test_recipes.py runs the script: it needs arguments."""
    name = re.match(r"#!/bin/sh\n# ([\w-]+) ", text)
    other = (CHECKOUT / "tests/e2e/test_recipes.py").read_text()
    return name is not None and f'script("{name[1]}")' in other


def is_album_script(text: str) -> bool:
    """Whether tests/e2e/test_album.py runs the script, on an album that it makes."""
    other = (CHECKOUT / "tests/e2e/test_album.py").read_text()
    return text.startswith("album=NAME\n") and '"album-format.md"' in other


def is_decryption(text: str) -> bool:
    """Whether tests/e2e/test_decrypt.py runs the script, on an encrypted folder that it makes."""
    other = (CHECKOUT / "tests/e2e/test_decrypt.py").read_text()
    return text.startswith("bucket=FOLDER") and "docs/remote-format.md" in other


# Page, how a block of it begins, and the reason: a function that must still hold for the block.
_NOT_RUN = [
    ("README.md", "contrib/demo ", installs),
    ("README.md", "contrib/install ", installs),
    ("CONTRIBUTING.md", "contrib/install test", installs),
    ("CONTRIBUTING.md", ".venv/bin/python -m pytest", installs),
    ("docs/album-format.md", "album=NAME", is_album_script),
    ("docs/benchmarks.md", "apt-get install", installs),
    ("docs/benchmarks.md", "python -m tests.bench.archive", is_long),
    ("docs/benchmarks.md", "python -m tests.bench.latency", is_long),
    ("docs/benchmarks.md", "python -m tests.bench.remote", is_long),
    ("docs/benchmarks.md", "python -m tests.bench.retention", is_long),
    ("docs/benchmarks.md", "python -m tests.bench.scale", is_long),
    ("docs/benchmarks.md", "python -m tests.bench.text", is_long),
    ("docs/benchmarks.md", "python -m tests.bench.search", is_long),
    ("docs/search.md", "apt-get install", installs),
    ("docs/desktop.md", "fsmount setup --capture", is_for_the_system),
    ("docs/recipes.md", "#!/bin/sh\n# ocr-day", is_recipe),
    ("docs/recipes.md", "#!/bin/sh\n# encrypted-open", is_recipe),
    ("docs/recipes.md", "#!/bin/sh\n# encrypted-close", is_recipe),
    ("docs/remote-format.md", "bucket=FOLDER", is_decryption),
    ("docs/system.md", "sudo fsmount setup", is_for_the_system),
    ("docs/system.md", "mount -t fuse.fsmount", is_for_the_system),
    ("docs/system.md", "fsmount setup --push", is_for_the_system),
    ("docs/system.md", "fsmount setup ~/shots.store", is_for_the_system),
    ("docs/testing.md", "FSMOUNT_KILLS=500", is_long),
    ("docs/testing.md", "make -C tests/fuzz run", is_long),
    ("docs/testing.md", "python -m tests.bench ", is_long),
]


def is_run(block: Block) -> bool:
    named = [start for page, start, _ in _NOT_RUN if page == block.page]
    return block.language == "sh" and not block.text.startswith(tuple(named))


RUN = {page: [block.text for block in blocks(page) if is_run(block)] for page in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_a_block_says_whether_it_has_commands(page: str) -> None:
    languages = {block.language for block in blocks(page)}
    assert languages <= _OTHER | {"sh"}, "mark the block: ```sh or ```text"


@pytest.mark.parametrize(("page", "start", "reason"), _NOT_RUN)
def test_a_block_that_is_not_run_still_has_its_reason(
    page: str, start: str, reason: object
) -> None:
    assert callable(reason)
    found = [block.text for block in blocks(page) if block.text.startswith(start)]
    assert found, "the block is gone: take it out of the list"
    assert all(reason(text) for text in found), f"{reason.__doc__} No: run the block"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_files_and_modules_that_exist(page: str) -> None:
    """Also blocks that are not run."""
    for block in blocks(page):
        if block.language != "sh":
            continue
        for module in re.findall(r"python -m ((?:tests|fsmount)[\w.]*)", block.text):
            assert find_spec(module), module
        for path in re.findall(r"(?<![\w/.-])((?:tests|contrib|\.ci)/[\w./-]+)", block.text):
            assert (CHECKOUT / path).exists(), path


# -- blocks that are run

_REAL_MOUNT = pytest.mark.skipif(missing() is not None, reason=str(missing()))
# What must be there for a program that a block runs.
_NEEDS = {
    r"\bmaim ": all(map(shutil.which, ("maim", "Xvfb"))),
    r"\bvideo .*\.(mp4|webm)\b": bool(find_spec("av")),
    r"\balbum |\.xml\b": bool(shutil.which("exiftool") and find_spec("av")),
    r"\| less": bool(shutil.which("less")),
    r"\bage-keygen ": bool(shutil.which("age-keygen")),
    r"\brsync ": bool(shutil.which("rsync")),
    r"\bfsmount serve ": bool(find_spec("hypercorn") and find_spec("starlette")),
    r"allow_other": os.geteuid() == 0,
}
# These would unmount what other tests have mounted, and start services of systemd.
_OTHERS = re.compile(r"umount --all|\bsetup (?!.*--print)")
# Something is at the URL, which a key opens.
_ENCRYPTED = (
    "export FSMOUNT_IDENTITY=$PWD/identity;"
    ' fsmount push shots.store "$URL" --encrypt --recipient first.pub'
)
# Commands that make a home folder fit a page, a command, or the block that begins with a line: by
# default it has a store with all that is in ~/screenshots, and a folder for each other name of the
# pages.
_BEFORE = {
    "README.md": "rm -r shots.store screenshots italy media/stick/*",
    "docs/recipes.md": "rm -r shots.store; fsmount init shots.store",
    "docs/desktop.md": "rm -r screenshots; mkdir screenshots",
    "fsmount umount ~/screenshots": "fsmount adopt ~/screenshots",
    "init": "rm -r shots.store",
    "ls": 'test -z "$URL" || fsmount push shots.store "${URL}laptop"',
    "mount": "rm -r screenshots; mkdir screenshots;"
    ' test -z "$URL" || fsmount push shots.store "$URL"',
    "umount": "rm -r screenshots; mkdir screenshots; fsmount mount shots.store screenshots",
    "serve": "rm -r screenshots; mkdir screenshots; fsmount mount shots.store screenshots",
    "thumbs": "rm -r screenshots; mkdir screenshots; fsmount mount shots.store screenshots",
    "search": "fsmount text --quiet shots.store",
    "verify": "fsmount mount -o ro screenshots.old mnt",
    "copy": "for y in 2023 2024; do fsmount init $y.store; fsmount import $y $y.store; done",
    "pull": 'fsmount push shots.store "$URL"; rm -r shots.store',
    "thaw": 'fsmount push shots.store "$URL" --class DEEP_ARCHIVE',
    "evict": 'test -z "$URL" || fsmount push shots.store "$URL"',
    "key": _ENCRYPTED,
    "key add": _ENCRYPTED,
    "key list": _ENCRYPTED,
    "key forget": _ENCRYPTED,
    "key rotate": _ENCRYPTED,
    "key remove": f'{_ENCRYPTED}; fsmount key add "$URL" laptop --recipient laptop.pub',
    "album": "rm -r media/stick/*",
    "album create": "rm -r media/stick/*",
    "trash": "fsmount prune --quiet --yes --keep-last 1 shots.store",
    "trash restore": "fsmount prune --quiet --yes --keep-last 1 shots.store",
    "trash empty": "fsmount prune --quiet --yes --keep-last 1 shots.store",
}


# A server runs until it is told to end: as soon as it has printed its link.
_SERVE = """
serve() {
    coproc fsmount serve "$@"
    local pid=$COPROC_PID link
    read -r link <&"${COPROC[0]}"
    kill "$pid"
    wait "$pid"
}
"""


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(camera(seed, 240, 180))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with all that the pages name; tests use copies."""
    home = tmp_path_factory.mktemp("model") / "home"
    shots = home / "screenshots"
    (shots / "desk" / "2024-06-06").mkdir(parents=True)
    for number, picture in enumerate(sorted(REAL.iterdir())[:3]):
        target = shots / "desk" / f"2024-06-06T17:4{number}:00+00:00.png"
        with Image.open(picture) as opened:
            # Pictures are small, since the tests are about commands.
            opened.crop((0, 0, 640, 400)).save(target)
        shutil.copy2(target, shots / "desk" / "2024-06-06" / f"1{number}.png")
    (shots / "notes.txt").write_text("a note\n")
    for name in ("mnt", "tmp", "data", "srv", "italy", "media/stick", "media/disk", "backup"):
        (home / name).mkdir(parents=True)
    for name in ("old-screenshots", "2023", "2024"):
        shutil.copytree(shots / "desk", home / name)
    well("init", home / "shots.store")
    well("import", f"{shots}/", home / "shots.store")
    shutil.copytree(home / "shots.store", home / "backup" / "shots.store")
    well("export", "--legacy", home / "shots.store", home / "screenshots.old")
    assert list((home / "screenshots.old").rglob("*.jxl"))
    for name in ("identity", "laptop"):
        new_identity(home, name)
    (home / "first.pub").write_text(public_key(home / "identity"))
    (home / "laptop.pub").write_text(public_key(home / "laptop"))
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_ed25519.pub").write_text(SSH_PUBLIC)
    (home / "safe.txt").write_text("correct horse\n")
    for number, name in enumerate(("photos/2014-07-Italy/1", "photos/late/2", "Italy/3")):
        photo(home / f"{name}.jpg", number)
    if _NEEDS[r"\balbum |\.xml\b"]:
        well("album", "create", home / "photos" / "2014-07-Italy", "-o", home / "media" / "stick")
    return home


@pytest.fixture
def home(model: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the home folder. What is mounted in it is unmounted at the end."""
    copy = tmp_path / "home"
    subprocess.run(["cp", "-a", model, copy], check=True)
    yield copy
    for mounted in reversed(list(mount_table.read(Path("/proc/self/mountinfo")))):
        if copy in mounted.mountpoint.parents:
            subprocess.run(["umount", "-l", mounted.mountpoint], check=True)


def run(home: Path, what: str, text: str, **variables: str) -> None:
    """Run the commands of a page or command in a home folder. Asserts that each ends with 0."""
    for pattern, there in _NEEDS.items():
        if re.search(pattern, text) and not there:
            pytest.skip(f"what /{pattern}/ needs is not installed, or this is not root")
    text = _SYSTEM.sub(rf"{home}/\1", text).replace("file:///media", f"file://{home}/media")
    text = text.replace("s3://my-bucket", f"s3://{BUCKET}")
    if url := re.search(r"(?:s3|file)://\S+", text):
        variables["URL"] = url[0]
    if "fsmount serve " in text:
        # Nothing is to open a window.
        variables["BROWSER"] = "true"
        text = _SERVE + text.replace("fsmount serve ", "serve ")
    paths = re.findall(r"(?<![\w.~/$}])/\w[\w/.-]*", text)
    outside = [path for path in paths if path != "/dev/null" and not path.startswith(str(home))]
    assert not outside, "a test must not touch them: add their folder to _SYSTEM"
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with ExitStack() as stack:
        if "s3://" in text:
            port = stack.enter_context(server("moto", home / "bucket"))
            variables |= {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_REGION": "eu-central-1",
            }
            variables |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        done = subprocess.run(
            ["bash", "-e", "-c", f"{_BEFORE.get(what, '')}\nset -x\n{text}"],
            cwd=home,
            env={**os.environ, "HOME": str(home), "PATH": tools, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.mount
@_REAL_MOUNT
@pytest.mark.parametrize(
    "page", [page for page, texts in RUN.items() if texts and page not in ("README.md", _REFERENCE)]
)
def test_a_page(page: str, home: Path) -> None:
    run(home, page, "\n".join(RUN[page]))


@pytest.mark.mount
@_REAL_MOUNT
@pytest.mark.skipif(not _NEEDS[r"\bmaim "], reason="maim or Xvfb is not installed")
def test_the_readme(home: Path, display: dict[str, str]) -> None:
    """The quick start ends with all pictures in the store, encoded."""
    text = "\n".join(RUN["README.md"])
    assert "fsmount verify ~/old-screenshots/ " in text
    run(home, "README.md", text, DISPLAY=display["DISPLAY"])
    kept = json.loads(well("stats", home / "shots.store", "--json"))
    old = [path for path in (home / "old-screenshots").rglob("*") if path.is_file()]
    # Also what maim wrote.
    assert kept["files"] == len(old) + 1
    assert kept["objects"]["staged"] == 0
    assert list((home / "italy").iterdir())


def examples() -> Iterator[tuple[str, str]]:
    """Command and text of each example of the reference.

    Lines under "Examples" are alternatives, and each stands for itself. Another block is one text.
    """
    parts = re.split(r"^## (.+)$", (CHECKOUT / _REFERENCE).read_text(), flags=re.MULTILINE)
    block = re.compile(r"^(Examples?:\n\n)?```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        for alternatives, lines in block.findall(text):
            for part in lines.splitlines() if alternatives else [lines.rstrip("\n")]:
                yield name, part


EXAMPLES = list(examples())


def test_the_reference_has_no_other_blocks() -> None:
    assert (
        "".join(RUN[_REFERENCE]).splitlines()
        == "\n".join(text for _, text in EXAMPLES).splitlines()
    )


@pytest.mark.mount
@_REAL_MOUNT
@pytest.mark.parametrize(("command", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_an_example(command: str, text: str, home: Path) -> None:
    if _OTHERS.search(text):
        pytest.skip("it would change more than its home folder")
    run(home, text.partition("\n")[0] if "\n" in text else command, text)
