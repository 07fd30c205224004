"""Files of object stores and the web are read as those of the machine are. An S3 of the test's own stands for them."""

import gzip
import json
import re
import shutil
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers import run_llmctl

from llmctl.corpus import files
from llmctl.corpus.files import files_of
from llmctl.corpus.rows import Faults, read_rows
from llmctl.errors import UserError

ENTRY = "<Contents><Key>{0}</Key><Size>{1}</Size><ETag>x</ETag><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
FOLDER = "<CommonPrefixes><Prefix>{0}</Prefix></CommonPrefixes>"
LISTING = (
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{0}</Name><IsTruncated>false</IsTruncated>'
    "{1}</ListBucketResult>"
)


class Bucket(BaseHTTPRequestHandler):
    """GET and HEAD of objects with ranges, and ListObjectsV2."""

    root: Path
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        bucket, _, key = urllib.parse.unquote(address.path).lstrip("/").partition("/")
        file = self.root / bucket / key
        self.asked.append(self.headers.get("Range") or "")
        if "list-type" in query:
            self.answer(200, self.listing(bucket, query.get("prefix", "")).encode())
        elif file.is_file():
            wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            data = file.read_bytes()
            if wanted:
                data = data[int(wanted[1]) : int(wanted[2]) + 1 if wanted[2] else None]
            self.answer(206 if wanted else 200, data)
        else:
            self.answer(404, b"")

    def listing(self, bucket: str, prefix: str) -> str:
        keys = [file.relative_to(self.root / bucket).as_posix() for file in (self.root / bucket).rglob("*") if file.is_file()]
        keys = sorted(key for key in keys if key.startswith(prefix))
        here = [key for key in keys if "/" not in key[len(prefix) :]]
        folders = sorted({prefix + key[len(prefix) :].split("/")[0] + "/" for key in keys if key not in here})
        entries = [ENTRY.format(key, (self.root / bucket / key).stat().st_size) for key in here]
        return LISTING.format(bucket, "".join(entries + [FOLDER.format(folder) for folder in folders]))

    def answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of an S3. One for all tests: daft keeps to the first that it has found."""
    Bucket.root, Bucket.asked = tmp_path_factory.mktemp("store"), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(server, monkeypatch):
    """The folder of an empty bucket "texts" that s3:// reaches."""
    place = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server}", "AWS_REGION": "us-east-1"}
    for name, value in (place | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).items():
        monkeypatch.setenv(name, value)
    folder = Bucket.root / "texts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Bucket.asked.clear()
    return folder


ROWS = [
    {"id": str(n), "text": f"Document {n} has words enough to be told from others, and a number {n * 7919}."} for n in range(50)
]


def written(folder: Path) -> None:
    """The same rows in every form, two of them in a folder below."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    (folder / "own" / "deep").mkdir(parents=True)
    (folder / "own" / "a.jsonl").write_bytes(lines)
    (folder / "own" / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "own" / "deep" / "c.jsonl.zst").write_bytes(zstandard.compress(lines))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "own" / "deep" / "d.parquet")
    (folder / "own" / "e.txt").write_text("A text of its own.\n")
    (folder / "own" / "picture.png").write_bytes(b"no text")


def test_every_form_is_read_from_a_store(store):
    written(store)
    rows = list(read_rows("s3://texts/own", Faults("stop")))
    by_file: dict[str, list] = {}
    for place, row in rows:
        by_file.setdefault(place.removeprefix("s3://texts/own/").split(":")[0], []).append(row)
    assert sorted(by_file) == ["a.jsonl", "b.jsonl.gz", "deep/c.jsonl.zst", "deep/d.parquet", "e.txt"]
    assert all(found == ROWS for name, found in by_file.items() if name != "e.txt")
    assert by_file["e.txt"] == [{"text": "A text of its own.\n"}]


def test_patterns_and_single_files(store, server):
    written(store)
    names = [file.below for file in files_of("s3://texts/own/", [".jsonl.zst", ".parquet"], ["deep/*.zst"])]
    assert names == ["deep/c.jsonl.zst"]
    for address in ("s3://texts/own/a.jsonl", f"http://127.0.0.1:{server}/texts/own/a.jsonl"):
        (file,) = files_of(address, [".jsonl"])
        assert (file.name, file.below, file.size) == (address, "a.jsonl", (store / "own" / "a.jsonl").stat().st_size)
        assert [row for _, row in read_rows(address, Faults("stop"))] == ROWS


def test_a_large_file_is_fetched_by_ranges(store, monkeypatch):
    data = bytes(range(256)) * 4000
    (store / "large.txt").write_bytes(data)
    monkeypatch.setattr(files, "BLOCK", 100_000)
    (file,) = files_of("s3://texts/large.txt", [".txt"])
    with file.open() as opened:
        assert opened.read(1000) == data[:1000]
        opened.seek(-500, 2)
        assert opened.read() == data[-500:]
        opened.seek(0)
        assert opened.read() == data
    assert len([wanted for wanted in Bucket.asked if wanted]) > 1


def test_what_is_not_there_is_told(store):
    written(store)
    with pytest.raises(UserError, match=r"s3://texts/none: no such file or folder; expected .jsonl"):
        files_of("s3://texts/none", [".jsonl"])
    with pytest.raises(UserError, match=r"none of 1 files matches x-\*; the first is a.jsonl"):
        files_of("s3://texts/own", [".jsonl"], ["x-*"])
    (store / "own" / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:40])
    with pytest.raises(UserError, match=r"s3://texts/own/cut.jsonl.gz:1: broken or truncated"):
        list(read_rows("s3://texts/own/cut.jsonl.gz", Faults("stop")))


def test_a_corpus_is_curated_from_a_store(store, tmp_path):
    written(store)
    recipe = tmp_path / "own.toml"
    recipe.write_text('name = "own"\n[corpus.sources.mine]\npath = "s3://texts/own"\nfiles = ["deep/*"]\n')
    made = run_llmctl("curate", recipe, "--runs", tmp_path / "runs")
    assert made.returncode == 0, made.stderr
    (stats,) = (tmp_path / "runs" / "own").glob("corpus-*/stats.json")
    counts = json.loads(stats.read_text())["mine"]
    assert counts["train_documents"] + counts["heldout_documents"] == 50
    recipe.write_text(recipe.read_text().replace("s3://texts/own", "s3://texts/none"))
    missing = run_llmctl("curate", recipe, "--runs", tmp_path / "runs")
    assert missing.returncode == 2
    assert "s3://texts/none: no such file or folder" in missing.stderr
    assert "Traceback" not in missing.stderr
