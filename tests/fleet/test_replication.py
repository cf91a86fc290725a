"""A fleet with two replicas: a cloud that is away for a while, and a mirror; callbacks; repair of what was lost by hand."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests import programs
from tests.engine.pictures import jpg, noise
from tests.files import files_in
from tests.fleet.machines import machines, shared_settings
from tests.forked import run_module
from tests.ports import free_port
from tests.programs import ACCESS_KEY, SECRET_KEY, Program
from tests.receiving import Received, Receiver, receiving
from tests.server.running import Server, clean_environment
from tests.waiting import until

from lazypix.signing.messages import ID, SIGNATURE, TIMESTAMP, is_signed
from lazypix.stores import BlobStore

SECRET = "a-secret-for-tests-of-callbacks"
PICTURE = jpg(noise(300, 200))
CATCH_UP_S = 180.0
"""What failed often while a cloud was away rests for up to a minute."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    servers: list[Server]
    settings: dict[str, str]
    receiver: Receiver
    folder: Path
    cloud_port: int
    mirror: BlobStore
    cloud: ExitStack = field(default_factory=ExitStack)
    running: Program | None = None

    def cloud_comes(self) -> Program:
        """Start the cloud, with what it had before, if it is away."""
        if self.running is None:
            self.running = self.cloud.enter_context(programs.rclone_s3(self.folder / "cloud", port=self.cloud_port))
        return self.running

    def cloud_goes(self) -> None:
        self.running = None
        self.cloud.close()

    def cloud_keys(self) -> set[str]:
        root = self.folder / "cloud" / "root" / "bucket"
        return {str(file.relative_to(root)) for file in files_in(root)}

    def mirror_keys(self) -> set[str]:
        return {blob.key for blob in self.mirror.list()}

    def upload(self, number: int, ident: str, **fields: str) -> None:
        """Upload to one machine of the fleet."""
        self.servers[number % 2].upload(PICTURE, ident=ident, **fields)

    def told(self, path: str) -> list[Received]:
        return [request for request in self.receiver.requests if urlsplit(request.target).path == path]

    def jobs(self) -> str:
        """What is left to be done for the replicas and callbacks."""
        figures = httpx.get(f"{self.servers[0].url}/metrics", timeout=30).text.splitlines()
        ours = ('kind="replicate:', 'kind="callback', 'kind="warm')
        return "\n".join(
            line for line in figures if line.startswith("lazypix_jobs{") and any(k in line for k in ours)
        )

    def lazypix(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        words = [*arguments, "--data", str(self.folder / "operator")]
        return run_module("lazypix", words, cwd=self.folder, env=clean_environment(self.settings), timeout_s=120)


@pytest.fixture(scope="module")
def fleet(
    seaweedfs: Program, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "cloud").mkdir()
    port = free_port()
    prefix = uuid.uuid4().hex
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    cloud = f"s3://bucket?endpoint=http://127.0.0.1:{port}&region=us-east-1&checksum=none&timeout=30&retries=1"
    mirror = f"s3://bucket/{prefix}?endpoint=http://{seaweedfs.address}&region=us-east-1"
    replicas = [
        {"name": "cloud", "store": cloud, "layout": "imageserver", **keys},
        {"name": "mirror", "store": mirror, "what": "all", **keys},
    ]
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        settings = shared_settings(
            seaweedfs, new_database(), replicas=json.dumps(replicas), callback_secret=SECRET, outbound_allow="127.0.0.1",
            outbound_ports=str(receiver.port),
        )  # fmt: skip
        servers = stack.enter_context(machines(folder, 2, **settings))
        made = Fleet(
            servers=servers, settings=settings, receiver=receiver, folder=folder, cloud_port=port,
            mirror=programs.s3_store(seaweedfs, prefix),
        )  # fmt: skip
        stack.callback(made.cloud_goes)
        stack.callback(made.mirror.close)
        yield made


def test_a_cloud_that_was_away_catches_up_and_callbacks_come_once(fleet: Fleet) -> None:
    idents = [f"away{number}" for number in range(6)]
    for number, ident in enumerate(idents):
        fleet.upload(number, ident, sizes="60x40", callback=f"{fleet.receiver.url}/{ident}")
    expected = {f"{ident}/{name}" for ident in idents for name in ("origin.jpg", "60x40,fit=cover,quality=90.jpg")}
    until(lambda: expected <= fleet.mirror_keys(), CATCH_UP_S, lambda: f"{fleet.mirror_keys()}")
    assert httpx.delete(f"{fleet.servers[1].url}/image/away5", timeout=60).status_code == 200
    until(lambda: not any("away5" in key for key in fleet.mirror_keys()), CATCH_UP_S)
    assert not [request for request in fleet.receiver.requests if "away5" not in request.target]

    fleet.cloud_comes()
    there = {key for ident in idents[:5] for key in (f"image/{ident}.jpg", f"image/60/{ident}.jpg")}
    until(lambda: fleet.cloud_keys() >= there, CATCH_UP_S, lambda: f"{fleet.cloud_keys()}\n{fleet.jobs()}")
    until(lambda: fleet.jobs() == "", CATCH_UP_S, fleet.jobs)
    assert {key for key in fleet.cloud_keys() if "away" in key} == there
    root = fleet.folder / "cloud" / "root" / "bucket"
    assert (root / "image" / "away0.jpg").read_bytes() == PICTURE
    assert (root / "image/60/away0.jpg").read_bytes() == fleet.servers[0].get("/image/60/40/away0.jpg").content
    for ident in idents:
        (request,) = fleet.told(f"/{ident}")
        headers, said = request.headers, json.loads(request.body)
        assert (said["ident"], said["sizes"]) == (ident, [["60", "40"]])
        assert said["replicas"] == {"cloud": "done", "mirror": "done"}
        assert is_signed(
            [SECRET.encode()], id=headers[ID], timestamp=headers[TIMESTAMP], signature=headers[SIGNATURE],
            body=request.body, now_s=time.time(),
        )  # fmt: skip


def test_what_is_deleted_while_the_cloud_is_away_is_not_left_there(fleet: Fleet) -> None:
    fleet.cloud_comes()
    fleet.upload(0, "doomed", sizes="50x50")
    until(lambda: {"image/doomed.jpg", "image/50/doomed.jpg"} <= fleet.cloud_keys(), CATCH_UP_S, fleet.jobs)
    fleet.cloud_goes()
    fleet.upload(1, "late")
    assert httpx.delete(f"{fleet.servers[1].url}/image/doomed", timeout=60).status_code == 200
    until(lambda: not any("doomed" in key for key in fleet.mirror_keys()), CATCH_UP_S)
    assert any("doomed" in key for key in fleet.cloud_keys())
    fleet.cloud_comes()
    until(lambda: not any("doomed" in key for key in fleet.cloud_keys()), CATCH_UP_S, fleet.jobs)
    until(lambda: "image/late.jpg" in fleet.cloud_keys(), CATCH_UP_S, fleet.jobs)


def test_repair_finds_what_was_deleted_by_hand(fleet: Fleet) -> None:
    fleet.cloud_comes()
    fleet.upload(0, "kept", sizes="30x20")
    until(lambda: "image/30/kept.jpg" in fleet.cloud_keys(), CATCH_UP_S, fleet.jobs)
    until(lambda: fleet.jobs() == "", CATCH_UP_S, fleet.jobs)
    before = fleet.lazypix("replicas", "status", "--contents")
    assert before.returncode == 0, before.stdout + before.stderr
    with closing(programs.s3_store(fleet.cloud_comes(), checksum="none")) as cloud:
        assert cloud.delete("image/30/kept.jpg")
    fleet.mirror.put("kept/origin.jpg", PICTURE[:-1] + b"?")
    fleet.mirror.delete("kept/30x20,fit=cover,quality=90.jpg")

    done = fleet.lazypix("replicas", "status", "--contents", "--json")
    assert done.returncode == 1
    assert b"3 blobs are not as they should be" in done.stderr
    told = json.loads(done.stdout)
    found = {(line["replica"], line["kind"], line["key"]) for line in told if line["kind"] != "sum"}
    assert found == {
        ("cloud", "missing", "image/30/kept.jpg"), ("mirror", "different", "kept/origin.jpg"),
        ("mirror", "missing", "kept/30x20,fit=cover,quality=90.jpg"),
    }  # fmt: skip
    repaired = fleet.lazypix("replicas", "repair", "--contents")
    assert repaired.returncode == 0, repaired.stderr
    after = fleet.lazypix("replicas", "status", "--contents")
    assert after.returncode == 0, after.stdout
    assert fleet.mirror.get("kept/origin.jpg") == PICTURE
