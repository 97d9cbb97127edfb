"""Buckets whose objects cannot be removed: SeaweedFS with an object lock, moto with a policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import trio
from botocore.exceptions import ClientError

from fsmount.errors import RemoteFailed
from fsmount.remote.objects import damaged_parts, last_state
from fsmount.remote.pruning import PruneSummary, prune
from fsmount.remote.transport import transport_to
from tests.cli.commands import process
from tests.support.backups import MORE, WANTED, shown
from tests.support.buckets import BUCKET, use_endpoint
from tests.support.proxy import proxy
from tests.support.remotes import objects_of, pulled, pushed
from tests.support.repacking import fill


def client_of(port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    use_endpoint(monkeypatch, port)
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")


@pytest.fixture(name="locked")
def locked_bucket(weed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of SeaweedFS, and a bucket in which each version stays for a day."""
    client = client_of(weed, monkeypatch)
    bucket = f"locked-{tmp_path.name.replace('_', '-')[-40:]}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    yield client, bucket
    client.close()


def pruned(url: str) -> PruneSummary:
    remote = transport_to(url)
    return prune(remote, remote, keep_states=1)


def several_pushes(filled: Path, url: str) -> None:
    pushed(filled, url)
    for name, data in MORE.items():
        trio.run(fill, filled, {name: data})
        pushed(filled, url)


def test_an_object_lock(filled: Path, locked: Any, tmp_path: Path) -> None:
    """A lock holds versions: what a prune removes goes out of sight, and stays."""
    client, bucket = locked
    url = f"s3://{bucket}/shots"
    several_pushes(filled, url)
    before = objects_of(url)
    done = pruned(url)
    assert (done.states, done.retained, done.keeps_versions) == (4, 0, True)
    assert done.objects > 0
    after = objects_of(url)
    gone = set(before) - set(after)
    assert len(gone) == done.states + done.objects
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="shots/")
    versions = {
        each["Key"].removeprefix("shots/"): each["VersionId"]
        for page in pages
        for each in page.get("Versions", [])
    }
    for name in sorted(gone):
        version = {"Bucket": bucket, "Key": f"shots/{name}", "VersionId": versions[name]}
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(**version)
        assert client.get_object(**version)["Body"].read() == before[name]
    # It goes on: pushes, another prune, and the way back.
    trio.run(fill, filled, {b"later": b"some bytes"})
    pushed(filled, url)
    assert pruned(url).retained == 0
    remote = transport_to(url)
    state = last_state(remote)
    assert state is not None
    assert damaged_parts(remote, state) == []
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE | {b"later": b"some bytes"}


def test_the_command_says_that_versions_stay(filled: Path, locked: Any) -> None:
    url = f"s3://{locked[1]}/shots"
    several_pushes(filled, url)
    push = ("push", str(filled), url, "--prune", "--keep-states", "1")
    done = process(*push)
    assert done.code == 0, done.err
    assert "the bucket keeps older versions of what was removed" in done.out


def test_rights_that_do_not_include_deletion(
    filled: Path, moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy of the bucket forbids it: what is retained is counted, and goes later."""
    client = client_of(moto, monkeypatch)
    bucket = f"append-only-{tmp_path.name.replace('_', '-')[-40:]}"
    client.create_bucket(Bucket=bucket)
    url = f"s3://{bucket}/shots"
    several_pushes(filled, url)
    before = objects_of(url)
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [denied]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    done = pruned(url)
    assert (done.states, done.objects, done.keeps_versions) == (0, 0, False)
    assert done.retained >= 4
    assert objects_of(url).items() > before.items()
    run = process("push", str(filled), url, "--prune", "--keep-states", "1")
    assert run.code == 0, run.err
    assert "the server retains" in run.out
    trio.run(fill, filled, {b"later": b"some bytes"})
    pushed(filled, url)
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE | {b"later": b"some bytes"}
    client.delete_bucket_policy(Bucket=bucket)
    done = pruned(url)
    assert done.retained == 0
    assert done.states >= 5
    remote = transport_to(url)
    state = last_state(remote)
    assert state is not None
    named = {part.name for part in state.parts()}
    assert {name for name in objects_of(url) if not name.startswith("state/")} == named
    client.close()


def test_a_bucket_that_wants_checksums(
    filled: Path, moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon's buckets with an object lock do; each transport learns it from one answer."""
    with proxy(moto) as between:
        use_endpoint(monkeypatch, between.port)
        between.plan = lambda method, path: "locked" if method == "PUT" else ""
        url = f"s3://{BUCKET}/{tmp_path.name}"
        remote = transport_to(url)
        assert [remote.put(f"packs/{n}", b"x") for n in range(3)] == [True] * 3
        assert not remote.put("packs/0", b"x")
        assert len(between.sent()) == 5
        pushed(filled, url)
        pulled(url, tmp_path / "back")
        assert shown(tmp_path / "back") == WANTED


def test_a_bucket_whose_lock_refuses_all(
    moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto accepts another header only: the error names what the server says, and nothing hangs."""
    client = client_of(moto, monkeypatch)
    bucket = f"locked-{tmp_path.name.replace('_', '-')[-40:]}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    with pytest.raises(RemoteFailed, match="400 Bad Request"):
        transport_to(f"s3://{bucket}/shots").put("packs/a", b"x")
    client.close()
