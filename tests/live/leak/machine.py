"""The steps that hypothesis puts together: who writes, shuts out, asks and gives up keys, in any order."""

from __future__ import annotations

import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.live.leak import agents
from tests.live.leak.asking import ABSENT, COMMON, aim, answer_body, check_answer, check_results, pick, search_body
from tests.live.leak.oracle import LOOK_ALIKES, PUBLIC, RESTRICTIONS, Caller, Canaries, Oracle, Version
from tests.live.leak.world import OPERATOR_KEY, Reply, World, document_path

SHARED_IDS = ("shared/one", "shared//one", "Shared/one", "a b?c#d%20", "../up", "\u00e9t\u00e9")
"""Ids that several writers use; some look alike, some are hard on addresses."""
SENTENCES = (
    "the pump is primed with two litres of glycol before each start.",
    "the tea room opens at seven and closes at four on workdays.",
    "train journeys under five hours are booked in second class.",
    "the harbour crane lifts forty tonnes at most, wind permitting.",
)
ROLE_SETS = (
    ("search", "ingest", "feedback"),
    ("search", "ingest", "feedback"),
    ("search", "feedback"),
    ("ingest",),
    ("search", "metrics"),
)
_KEPT_REQUESTS = 6


@dataclass(frozen=True)
class Asked:
    """A request that others ask again."""

    path: str
    body: dict[str, Any]


class LeakMachine(RuleBasedStateMachine):
    """One example: two tenants whose names fold alike, some callers, and what they do."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.canaries = Canaries("the same each time, so that failures can be made small")
        self.callers: list[Caller] = []
        self.names: list[str] = []
        self.revoked: set[str] = set()
        self.asked: list[Asked] = []
        self.queries: list[tuple[Caller, str, list[str]]] = []

    @initialize(data=st.data())
    def people(self, data: st.DataObject) -> None:
        """New tenants; the names of others in them must never matter."""
        nonce = uuid.uuid4().hex[:10]
        world = self.world
        world.oracle = Oracle()
        alike = pick(data.draw, LOOK_ALIKES)
        self.names = [*alike, "staff"]
        groups = st.lists(st.sampled_from(self.names), max_size=2, unique=True)
        for tenant in (f"leak-{nonce}", f"Leak-{nonce}"):
            admin = world.key_for("admin", tenant, (), ("admin",))
            keyed = world.key_for("keyed", tenant, data.draw(groups), data.draw(st.sampled_from(ROLE_SETS)))
            # the same subjects and groups in both tenants
            users = [
                world.user(subject, tenant, data.draw(groups), data.draw(st.sampled_from(ROLE_SETS)))
                for subject in ("bob", "BOB", "b\u00f6b")
            ]
            self.callers += [admin, keyed, *users]
        for _ in range(6):
            self._post_json(data, pick(data.draw, self.callers), force=True)

    # writing

    @rule(data=st.data())
    def post_text(self, data: st.DataObject) -> None:
        self._post_json(data, self._caller(data, "ingest"))

    @rule(data=st.data())
    def post_file(self, data: st.DataObject) -> None:
        """A Markdown file with sections: several passages, which are each other's neighbours."""
        caller = self._caller(data, "ingest")
        sections = "".join(
            f"\n## Part {self.canaries.word()}\n\n{self._text(data)}\n" for _ in range(data.draw(st.integers(1, 3)))
        )
        title = f"Manual {self.canaries.word()}"
        text = f"# {title}\n{sections}"
        name = f"{self.canaries.word()}.md"
        names_readers = data.draw(st.booleans())
        acl = (
            [item for item in self._acl(data) if "," not in item and item.strip(" ") == item] or [PUBLIC]
            if names_readers
            else [PUBLIC]
        )
        version = Version(
            tenant=caller.tenant,
            document_id=self._id(data),
            acl=frozenset(acl),
            title=title,
            text=text,
            source_id=self._source(data),
            uri=name,
            tags=self._tags(data),
            timestamp=None,
            upload=True,
        )
        form: dict[str, Any] = {
            "document_id": self._spelled(data, version.document_id),
            "source_id": version.source_id,
            "topic_tags": ",".join(version.tags),
        }
        lists = {key: [item for item in names if "," not in item] for key, names in self._restrictions(data).items()}
        lists = {key: names for key, names in lists.items() if names and all(item.strip(" ") == item for item in names)}
        if names_readers:
            lists["acl"] = acl
        form |= {key: ", ".join(names) for key, names in lists.items()}
        self._post(caller, version.changed(lists), lists, form, text, name)

    def _post_json(self, data: st.DataObject, caller: Caller, *, force: bool = False) -> None:
        again = [item for item in self.world.oracle.versions if item.tenant == caller.tenant and not item.upload]
        if again and not force and data.draw(st.integers(0, 4)) == 0:
            # what somebody wrote already, maybe with other readers, maybe by somebody who can't see it
            old = pick(data.draw, again)
            version = replace(old, acl=pick(data.draw, [old.acl, frozenset(self._acl(data))]))
            named = ["acl", *(key for key, names in version.lists(RESTRICTIONS).items() if names)]
        else:
            names_readers = force or data.draw(st.integers(0, 2)) > 0
            version = Version(
                tenant=caller.tenant,
                document_id=self._id(data),
                acl=frozenset(self._acl(data)) if names_readers else frozenset({PUBLIC}),
                title=f"Note {self.canaries.word()} <b>&amp;",
                text=self._text(data),
                source_id=self._source(data),
                uri=f"file:{self.canaries.word()}",
                tags=self._tags(data),
                timestamp=data.draw(st.sampled_from([None, None, "1985-05-05"])),
                upload=False,
            )
            restrictions = self._restrictions(data)
            version = version.changed(restrictions)
            named = [*(["acl"] if names_readers else []), *restrictions]
        body: dict[str, Any] = {
            "document_id": self._spelled(data, version.document_id),
            "title": version.title,
            "text": version.text,
            "source_id": version.source_id,
            "uri": version.uri,
            "topic_tags": list(version.tags),
        }
        if version.timestamp is not None:
            body["timestamp"] = version.timestamp
        body |= {key: sorted(names) for key, names in version.lists(named).items()}
        self._post(caller, version, named, body)

    def _post(
        self,
        caller: Caller,
        version: Version,
        named: Collection[str],
        body: dict[str, Any],
        text: str | None = None,
        name: str = "",
    ) -> None:
        def send() -> Reply:
            if text is None:
                return self.world.ask(caller, "POST", "/v1/documents", body, route="POST /v1/documents")
            form = {**body, "file": (BytesIO(text.encode()), name)}
            # the file is typed as well
            self_typed = {"X-Typed": "".join(sorted(version.canaries))}
            return self.world.ask(
                caller, "POST", "/v1/documents", form=form, headers=self_typed, route="POST /v1/documents (file)"
            )

        if not self._let_in(caller, "ingest"):
            self._refused(caller, send())
            return
        status = self.world.oracle.post(caller, version, named=named)
        reply = send()
        assert reply.status == 200, reply.body
        assert (reply.json["status"], reply.json["document_id"]) == (status, version.document_id)
        self._changed(caller, f"post {status}")

    @rule(data=st.data())
    def change_readers(self, data: st.DataObject) -> None:
        caller = self._caller(data, "ingest")
        document_id, change = self._any_id(data, caller, own=True), self._change(data)

        def send() -> Reply:
            path = document_path(document_id)
            return self.world.ask(caller, "PATCH", path, change, route="PATCH /v1/documents/{id}")

        if not self._let_in(caller, "ingest"):
            self._refused(caller, send())
            return
        expected = self.world.oracle.patch(caller, document_id, change)
        reply = send()
        if expected is None:
            assert reply.status == 404, reply.body
            return
        assert (reply.status, reply.json["status"]) == (200, expected[0]), reply.body
        assert _lists(reply.json) == expected[1].lists(("acl", *RESTRICTIONS))
        self._changed(caller, f"{'restriction' if set(change) - {'acl'} else 'acl'} {expected[0]}")

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        caller = self._caller(data, "ingest")
        document_id = self._any_id(data, caller, own=True)

        def send() -> Reply:
            return self.world.ask(caller, "DELETE", document_path(document_id), route="DELETE /v1/documents/{id}")

        if not self._let_in(caller, "ingest"):
            self._refused(caller, send())
            return
        there = self.world.oracle.delete(caller, document_id)
        assert send().status == (204 if there else 404)
        if there:
            self._changed(caller, "delete")

    # reading

    @rule(data=st.data())
    def search(self, data: st.DataObject) -> None:
        caller = self._caller(data, "search")
        self._read(caller, Asked("/v1/search", search_body(data.draw, self.world.oracle, caller)))

    @rule(data=st.data())
    def search_more(self, data: st.DataObject) -> None:
        self.search(data)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        caller = self._caller(data, "search")
        self._read(caller, Asked("/v1/answer", answer_body(data.draw, self.world.oracle, caller)))

    @rule(data=st.data(), tool=st.sampled_from(["find_in_document", "search", "answer"]))
    def agent_searches(self, data: st.DataObject, tool: str) -> None:
        self._call_tool(data, tool)

    @rule(data=st.data())
    def agent_opens(self, data: st.DataObject) -> None:
        self._call_tool(data, "open_page")

    @rule(data=st.data())
    def agent_lists(self, data: st.DataObject) -> None:
        self._call_tool(data, "list_documents")

    def _call_tool(self, data: st.DataObject, tool: str) -> None:
        caller = self._caller(data, "search")
        given = agents.arguments(data.draw, self.world.oracle, caller, tool)
        reply = agents.call(self.world, caller, tool, given)
        if not self._let_in(caller, "search"):
            self._refused(caller, reply)
            return
        agents.check(self.world, caller, tool, given, reply)

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        caller = self._caller(data, "search")
        self._get(caller, self._any_id(data, caller))

    @rule(data=st.data(), twice=st.booleans(), reworded=st.booleans())
    def everybody_asks_the_same(self, data: st.DataObject, twice: bool, reworded: bool) -> None:
        """One after the other, so that a cached answer of one would be the next one's; or the same in other words."""
        if not self.asked:
            return
        asked = pick(data.draw, self.asked)
        for turn, caller in enumerate(self.callers * (2 if twice else 1)):
            if caller.may("search"):
                words = f"Please: {asked.body['query']}" if reworded and turn % 2 else asked.body["query"]
                self._read(caller, replace(asked, body={**asked.body, "query": words}))

    def _read(self, caller: Caller, asked: Asked) -> None:
        reply = self.world.ask(caller, "POST", asked.path, asked.body, route=f"POST {asked.path}")
        if not self._let_in(caller, "search"):
            self._refused(caller, reply)
            return
        assert reply.status == 200, f"{asked.body}: {reply.body!r}"
        if asked.path == "/v1/answer":
            check_answer(self.world, caller, asked.body, reply)
            found = reply.events[-1][1] if asked.body.get("stream") else reply.json
        else:
            found = reply.json
            check_results(self.world, caller, asked.body, found)
        self.queries = [*self.queries, (caller, found["query_id"], [item["id"] for item in found["results"]])][-8:]
        if asked not in self.asked:
            self.asked = [*self.asked, asked][-_KEPT_REQUESTS:]

    def _get(self, caller: Caller, document_id: str) -> None:
        reply = self.world.ask(caller, "GET", document_path(document_id), route="GET /v1/documents/{id}")
        if not self._let_in(caller, "search"):
            self._refused(caller, reply)
            return
        seen = self.world.oracle.of_id(caller, document_id)
        assert reply.status == (200 if seen else 404), reply.body
        if seen:
            newest = seen[0]
            shown = reply.json
            assert shown["title"] == newest.title
            assert _lists(shown) == newest.lists(("acl", *RESTRICTIONS))
            expected: dict[str, set[str]] = defaultdict(set)
            for item in self.world.oracle.passages_for(caller):
                if item.version == newest:
                    expected[item.token].add(item.id)
            assert {item["id"] for item in shown["passages"]} in expected.values()

    @rule(data=st.data())
    def unseen_is_as_absent(self, data: st.DataObject) -> None:
        """What is hidden is answered like what is not there, to the letter."""
        caller = self._caller(data, "ingest")
        hidden = {item.document_id for item in self.world.oracle.hidden(caller)}
        hidden -= {item.document_id for item in self.world.oracle.visible(caller)}
        if not hidden or not self._let_in(caller, "ingest"):
            return
        unseen = pick(data.draw, sorted(hidden))
        absent = "".join(character if character in "/ ?#%." else "x" for character in unseen)
        for method in ("GET", "PATCH", "DELETE", "SEARCH"):
            answers = []
            for document_id in (unseen, absent):
                if method == "SEARCH":
                    chosen = {"document_id": [document_id]}
                    body = {"query": COMMON, "filter": chosen, "explain": True, "cache": False}
                    reply = self.world.ask(caller, "POST", "/v1/search", body, route="POST /v1/search")
                else:
                    given = {"acl": [PUBLIC]} if method == "PATCH" else None
                    path = document_path(document_id)
                    reply = self.world.ask(caller, method, path, given, route=f"{method} /v1/documents/{{id}}")
                answers.append(_masked(reply, document_id))
            assert answers[0] == answers[1], f"{method}: an unseen document is not answered as an absent one"
        if self._let_in(caller, "search"):
            for tool, given in (("open_page", {}), ("open_page", {"page": 1}), ("find_in_document", {"query": COMMON})):
                told = [
                    _masked(agents.call(self.world, caller, tool, {"document_id": item, **given}), item)
                    for item in (unseen, absent)
                ]
                assert told[0] == told[1], f"{tool}: an unseen document is not answered as an absent one"

    # everything else

    @rule(data=st.data())
    def feedback(self, data: st.DataObject) -> None:
        if not self.queries:
            return
        caller = self._caller(data, "feedback")
        owner, query_id, shown = pick(data.draw, self.queries)
        target = aim(data.draw, self.world.oracle, caller)
        choices: list[str | None] = [None, *shown[:2]] + ([target.id] if target is not None else [])
        result = pick(data.draw, choices)
        body = {"query_id": query_id, "label": "relevant", **({"result_id": result} if result else {})}
        reply = self.world.ask(caller, "POST", "/v1/feedback", body, route="POST /v1/feedback")
        if not self._let_in(caller, "feedback"):
            self._refused(caller, reply)
        elif owner != caller:
            absent = query_id[:20] + ("0" * 12 if query_id[20:] != "0" * 12 else "1" * 12)
            other = self.world.ask(
                caller, "POST", "/v1/feedback", {**body, "query_id": absent}, route="POST /v1/feedback"
            )
            assert reply.status == 404
            assert _masked(reply, query_id) == _masked(other, absent)
        else:
            assert reply.status == (202 if result is None or result in shown[:20] else 422)

    @rule(data=st.data())
    def models(self, data: st.DataObject) -> None:
        caller = self._caller(data, "search")
        target = aim(data.draw, self.world.oracle, caller)
        words = target.title if target is not None else COMMON
        method, path, body = pick(
            data.draw,
            [
                ("POST", "/v1/rerank", {"query": words, "documents": ["one", words], "return_documents": True}),
                ("POST", "/v1/embeddings", {"input": words}),
                ("GET", "/v1/models", None),
            ],
        )
        reply = self.world.ask(caller, method, path, body, route=f"{method} {path}")
        if not self._let_in(caller, "search"):
            self._refused(caller, reply)
        else:
            assert reply.status == 200

    @rule(
        path=st.sampled_from(
            ["/readyz", "/healthz", "/metrics", "/openapi.json", "/docs", "/", "/v1/none", "/v1/search"]
        ),
        data=st.data(),
    )
    def operations(self, path: str, data: st.DataObject) -> None:
        operator = Caller("operator", self.world.settings.access.tenant, None, frozenset({"admin"}), OPERATOR_KEY)
        caller = pick(data.draw, [None, operator, *self.callers])
        reply = self.world.ask(caller, "GET", path, route=f"GET {path}")
        if path == "/readyz":
            counted = reply.json["passages"]
            if caller is None or not self._let_in(caller, "metrics"):
                assert counted is None
            elif caller in self.callers:
                own = [item for item in self.world.oracle.passages.values() if item.version.tenant == caller.tenant]
                assert counted == len(own)

    @rule(data=st.data())
    def errors(self, data: st.DataObject) -> None:
        """Requests that are wrong in some way, around what the caller must not learn of."""
        caller = self._caller(data, "search")
        target = aim(data.draw, self.world.oracle, caller)
        word = target.title.split()[1] if target is not None else ABSENT
        document_id = target.version.document_id if target is not None else ABSENT
        method, path, body, raw, headers = pick(
            data.draw,
            [
                ("POST", "/v1/search", {"query": word, "filter": {"acl": [PUBLIC]}}, None, {}),
                ("POST", "/v1/search", {"query": word, "filter": {"tenant": ["x"]}}, None, {}),
                ("POST", "/v1/search", {"query": word, "filter": {"not": {"acl": [PUBLIC]}}}, None, {}),
                ("POST", "/v1/search", {"query": word, "size": 1000, "from": 500}, None, {}),
                ("POST", "/v1/search", {"query": {"match_all": {}}}, None, {}),
                ("POST", "/v1/search", None, b'{"query": "' + word.encode() + b'"', {}),
                ("POST", "/v1/search", None, b"query=x", {"Content-Type": "text/plain"}),
                ("POST", "/v1/answer", {"query": word, "timeout_ms": 1}, None, {}),
                ("POST", "/v1/search", {"query": word}, None, {"Authorization": "Bearer braid_1_2"}),
                ("POST", "/v1/search", {"query": word}, None, {"Authorization": ""}),
                ("POST", f"/v1/search?acl={PUBLIC}&tenant=x", {"query": COMMON}, None, {}),
                ("PUT", document_path(document_id), {"acl": [PUBLIC]}, None, {}),
                ("PATCH", document_path(document_id), {"acl": [PUBLIC], "tenant": "x"}, None, {}),
                ("PATCH", document_path(document_id), {"acl": ["a\u0000"]}, None, {}),
                ("PATCH", document_path(document_id), {}, None, {}),
                ("PATCH", document_path(document_id), {"acl_1": None}, None, {}),
                ("PATCH", document_path(document_id), {"acl_5": [word]}, None, {}),
                ("POST", "/v1/documents", {"document_id": document_id, "text": "x", "acl_1": []}, None, {}),
                ("POST", "/v1/documents", {"document_id": document_id, "text": " "}, None, {}),
                ("POST", "/v1/documents", {"document_id": document_id, "text": "x", "acl": [" "]}, None, {}),
                ("POST", "/v1/documents", {"document_id": document_id, "text": "x", "tenant": "x"}, None, {}),
                ("POST", "/v1/feedback", {"query_id": "0" * 32, "label": "relevant"}, None, {}),
                ("OPTIONS", document_path(document_id), None, None, {}),
                ("HEAD", document_path(document_id), None, None, {}),
            ],
        )
        if path == "/v1/answer":  # a spent budget is a 504, which is no defect here
            return
        self.world.ask(caller, method, path, body, raw=raw, headers=headers, route="errors")

    @precondition(lambda self: len(self.revoked) < 2)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        """A key ends; from then on it opens nothing, cached answers neither."""
        if data.draw(st.integers(0, 9)):
            return
        caller = pick(data.draw, [item for item in self.callers if item.key_id is not None])
        if caller.name == "admin" or caller.key_id in self.revoked:
            return
        self.world.revoke(caller)
        assert caller.key_id is not None
        self.revoked.add(caller.key_id)
        for asked in self.asked:
            self._read(caller, asked)

    # helpers

    def _changed(self, caller: Caller, what: str) -> None:
        """Look into the store; and whatever was asked before is asked again: nothing old may come."""
        self.world.tally.changes[what] += 1
        self.world.learn(caller.tenant)
        if self.asked:
            asked = self.asked[-1]
            before = self._hits
            mine = [other for other in self.callers if other.tenant == caller.tenant and other.may("search")]
            for other in (*mine, *mine[:2]):
                self._read(other, asked)
            self.world.tally.hits_after_changes += self._hits - before

    @property
    def _hits(self) -> int:
        return self.world.tally.cache["exact"] + self.world.tally.cache["near"]

    def _let_in(self, caller: Caller, role: str) -> bool:
        return caller.may(role) and caller.key_id not in self.revoked

    def _refused(self, caller: Caller, reply: Reply) -> None:
        assert reply.status == (401 if caller.key_id in self.revoked else 403), reply.body

    def _caller(self, data: st.DataObject, role: str) -> Caller:
        """Mostly somebody who may."""
        may = [caller for caller in self.callers if caller.may(role)]
        return pick(data.draw, self.callers if data.draw(st.integers(0, 9)) == 0 else may)

    def _any_id(self, data: st.DataObject, caller: Caller, *, own: bool = False) -> str:
        """Of any document, or of none; with `own` mostly of one that the caller sees."""
        seen = self.world.oracle.visible(caller) if own and data.draw(st.integers(0, 3)) else []
        if seen:
            return pick(data.draw, seen).document_id
        target = aim(data.draw, self.world.oracle, caller)
        choices = [*SHARED_IDS[:2], ABSENT] + ([target.version.document_id] * 4 if target is not None else [])
        return pick(data.draw, choices)

    def _id(self, data: st.DataObject) -> str:
        return pick(data.draw, [*SHARED_IDS, *["doc/" + self.canaries.word()] * 5])

    def _spelled(self, data: st.DataObject, document_id: str) -> str:
        """The id as macOS may send it: stored in NFC, it is the same."""
        if document_id.isascii() or data.draw(st.booleans()):
            return document_id
        return unicodedata.normalize("NFD", document_id)

    def _source(self, data: st.DataObject) -> str:
        return pick(data.draw, ["common", "source-" + self.canaries.word()])

    def _tags(self, data: st.DataObject) -> tuple[str, ...]:
        return tuple(sorted({"manual", self.canaries.word()} if data.draw(st.booleans()) else {self.canaries.word()}))

    def _acl(self, data: st.DataObject) -> list[str]:
        names = [*self.names, "user:bob", "user:BOB", "nobody"]
        chosen = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
        return [*chosen, PUBLIC] if data.draw(st.integers(0, 4)) == 0 else chosen

    def _restrictions(self, data: st.DataObject) -> dict[str, list[str]]:
        """Mostly none, sometimes all four; some hold for everybody."""
        count = data.draw(st.sampled_from([0, 0, 0, 1, 1, 4]))
        named = data.draw(st.permutations(RESTRICTIONS))[:count]
        names = st.lists(st.sampled_from([*self.names, "user:bob", PUBLIC]), min_size=1, max_size=3, unique=True)
        return {name: data.draw(names) for name in named}

    def _change(self, data: st.DataObject) -> dict[str, list[str]]:
        """Of a PATCH: the readers, some restrictions (an empty one is taken away), or both."""
        change = self._restrictions(data)
        opened = data.draw(st.lists(st.sampled_from(RESTRICTIONS), max_size=2, unique=True))
        change |= {name: [] for name in opened}
        return change if change and data.draw(st.booleans()) else {**change, "acl": self._acl(data)}

    def _text(self, data: st.DataObject) -> str:
        sentence = data.draw(st.sampled_from(SENTENCES))
        return f"This {COMMON} says: {sentence} See {self.canaries.code()} and {self.canaries.word()}."


def _lists(shown: dict[str, Any]) -> dict[str, frozenset[str]]:
    """The lists of readers in an answer."""
    return {name: frozenset(shown.get(name, ())) for name in ("acl", *RESTRICTIONS)}


def _masked(reply: Reply, name: str) -> tuple[int, tuple[tuple[str, str], ...], str]:
    """The answer without what differs between any two: the name asked for, request ids, times."""
    text = reply.body.decode()
    if reply.body.startswith(b"{"):
        told = reply.json
        for key in ("request_id", "query_id", "timings"):
            told.pop(key, None)
        text = str(told)
    skipped = {"x-request-id", "content-length", "ratelimit-remaining", "ratelimit-reset", "date"}
    headers = tuple(sorted((key, value) for key, value in reply.headers if key.lower() not in skipped))
    return reply.status, headers, text.replace(name, "NAME")
