"""The same as users run it: `braid serve` with several workers takes POST and PATCH beside a `braid ingest`."""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

from app.config import load_settings
from app.store.client import Cluster
from app.store.documents import refresh
from app.store.heads import Head, find_open, read_heads

_DOCUMENTS = 30
_SWEPT_S = 90
"""What a killed ingest had only announced is taken for dead after a minute, and swept."""


class Users:
    """Documents that a patcher, a poster and ingests write at once. A PATCH is the only one that names readers."""

    def __init__(self, url: str, opensearch_url: str, data: Path, seed: int) -> None:
        self._client = httpx2.Client(base_url=url, timeout=60, trust_env=False)
        self._cluster = Cluster(load_settings(opensearch_url=opensearch_url).opensearch)
        self._data = data
        self._chance = random.Random(seed)
        self._ids = [f"users-{n}" for n in range(_DOCUMENTS)]
        self._acl: dict[str, str] = {}
        self._texts: dict[str, set[str]] = {key: set() for key in self._ids}
        self._ingest_s = 20.0
        self.counts: collections.Counter[str] = collections.Counter()
        self.violations: list[str] = []

    def round(self, number: int) -> None:
        """One `braid ingest` of all documents, perhaps killed, while others are posted and patched."""
        kill = number % 3 == 2
        with tempfile.TemporaryDirectory(prefix="braid-users-") as folder:
            path = Path(folder) / "documents.jsonl"
            rows = [{"document_id": key, "text": self._text(key, f"ingest {number}")} for key in self._ids]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            command = [sys.executable, "-m", "app.cli", "ingest", str(path), "--source", "users", "--json"]
            env = {**os.environ, "BRAID_DATA_DIR": str(self._data)}
            begun = time.monotonic()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
            threads = [
                threading.Thread(target=work, args=(process, number, random.Random(self._chance.random())))
                for work in (self._patch, self._post)
            ]
            for thread in threads:
                thread.start()
            until = begun + self._ingest_s * self._chance.uniform(0.6, 1.0)
            while kill and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            if process.poll() is None and kill:
                process.kill()
                self.counts["ingests killed"] += 1
            out, err = process.communicate(timeout=240)
            for thread in threads:
                thread.join()
        if process.returncode >= 0:
            self._ingest_s = time.monotonic() - begun
            self._report(out, err)
        for key in self._ids:
            self._check(key)

    def end(self) -> None:
        """In the end, when all is swept, native searches show exactly what is in force."""
        until = time.monotonic() + _SWEPT_S
        while list(find_open(self._cluster)) and time.monotonic() < until:
            time.sleep(1)
        refresh(self._cluster)
        heads = read_heads(self._cluster, [Head("default", key) for key in self._ids])
        for head in heads.values():
            body = {"size": 500, "query": {"term": {"document_id": head.document_id}}}
            hits = self._cluster.request_all_shards(f"/{self._cluster.read_alias}/_search", body)["hits"]["hits"]
            found = sorted((hit["_source"]["content_hash"], tuple(hit["_source"]["acl"])) for hit in hits)
            version, access = head.version, head.access
            if version is None or access is None or found != [(version.token, access.acl)] * version.passages:
                self._say(f"{head.document_id}: in the end searches show {found}, and the head says {head}")
        self._client.close()
        self._cluster.close()

    def _patch(self, process: subprocess.Popen[bytes], number: int, chance: random.Random) -> None:
        while process.poll() is None:
            key, entry = chance.choice(self._ids), f"group-{chance.randrange(1000)}"
            answer = self._client.patch(f"/v1/documents/{key}", json={"acl": [entry]})
            self.counts[f"PATCH {answer.status_code}"] += 1
            if answer.status_code == 200:
                self._acl[key] = entry
            elif answer.status_code != 404 or self._acl.get(key):  # 404: before the first ingest
                self._say(f"PATCH of {key}: {answer.status_code} {answer.text[:300]}")

    def _post(self, process: subprocess.Popen[bytes], number: int, chance: random.Random) -> None:
        count = 0
        while process.poll() is None:
            key, count = chance.choice(self._ids), count + 1
            body = {"document_id": key, "text": self._text(key, f"post {number} {count}"), "source_id": "users"}
            answer = self._client.post("/v1/documents", json=body)
            self.counts[f"POST {answer.status_code}"] += 1
            if answer.status_code not in (200, 201, 409):
                self._say(f"POST of {key}: {answer.status_code} {answer.text[:300]}")

    def _text(self, key: str, name: str) -> str:
        text = f"This is {key} as of {name}."
        self._texts[key].add(text)
        return text

    def _report(self, out: bytes, err: bytes) -> None:
        if not out:
            self._say(f"braid ingest: {err.decode()[-500:]}")
            return
        report = json.loads(out)
        self.counts["ingests"] += 1
        for problem in report["failed"]:
            self.counts[f"ingest {problem['reason']}"] += 1
            if problem["reason"] != "overtaken":
                self._say(f"braid ingest: {problem}")

    def _check(self, key: str) -> None:
        answer = self._client.get(f"/v1/documents/{key}")
        self.counts["checked"] += 1
        if answer.status_code != 200:
            self._say(f"LOST: {key}: {answer.status_code} {answer.text[:300]}")
            return
        shown: dict[str, Any] = answer.json()
        if shown["acl"] != [self._acl.get(key, "public")]:
            self._say(f"RESTORED: {key} is for {shown['acl']}, and the last PATCH said {self._acl.get(key)}")
        if shown["passages"][0]["text"] not in self._texts[key]:
            self._say(f"CONTENT: {key} shows {shown['passages'][0]['text']}")

    def _say(self, what: str) -> None:
        print(what, file=sys.stderr, flush=True)
        self.violations.append(what)


def play_users(url: str, opensearch_url: str, data: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Play rounds against a running service; what was counted."""
    users = Users(url, opensearch_url, data, seed)
    begun = time.monotonic()
    for number in range(rounds):
        users.round(number)
    users.end()
    return {
        "rounds": rounds,
        "violations": len(users.violations),
        "first_violations": users.violations[:3],
        "counts": dict(sorted(users.counts.items())),
        "seconds": round(time.monotonic() - begun),
    }
