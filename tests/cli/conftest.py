"""Fixtures: commands that run in this process, and a store and a folder for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.cli import main
from tests.cli.commands import Cli, Done
from tests.support.trees import make_pictures, make_store


@pytest.fixture(name="cli")
def cli_in_process(capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    logger = logging.getLogger()
    before = list(logger.handlers)

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    yield run
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FSMOUNT_STORE", "FSMOUNT_CACHE_SIZE", "FSMOUNT_JOBS", "FSMOUNT_LOG"):
        monkeypatch.delenv(name, raising=False)
    return make_store(tmp_path / "store", monkeypatch)


@pytest.fixture(name="source")
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "in")
    return tmp_path / "in"
