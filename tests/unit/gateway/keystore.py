"""A cluster that keeps documents of `braid-keys` as OpenSearch does: by id, with sequence numbers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from app.store.client import Cluster, StoreRequestError

SECRET = "0123456789abcdef0123456789abcdef"


class KeyStore(Cluster):
    """`asked` counts look-ups; `failure` is raised in place of an answer."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.seq_no: dict[str, int] = {}
        self.asked = 0
        self.failure: Exception | None = None

    def request(self, method: str, path: str, *, params: Any = None, body: Any = None, **_: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        parts = path.strip("/").split("/")
        if parts == ["braid-keys"]:
            return {"acknowledged": True}
        if parts[1] == "_search":
            hits = [{"_id": key, "_source": deepcopy(self.kept[key]), "sort": [key, 1]} for key in sorted(self.kept)]
            return {"hits": {"hits": hits}}
        key = parts[2]
        if method == "GET":
            self.asked += 1
            if key not in self.kept:
                raise StoreRequestError("not there", status_code=404, error_type="unknown")
            return {"_source": deepcopy(self.kept[key]), "_seq_no": self.seq_no[key], "_primary_term": 1}
        if method == "DELETE":
            del self.kept[key]
            return {"result": "deleted"}
        assert method == "PUT"
        taken = parts[1] == "_create" and key in self.kept
        if taken or ("if_seq_no" in params and int(params["if_seq_no"]) != self.seq_no[key]):
            raise StoreRequestError("changed", status_code=409, error_type="version_conflict_engine_exception")
        self.kept[key] = deepcopy(body)
        self.seq_no[key] = self.seq_no.get(key, 0) + 1
        return {"result": "created"}
