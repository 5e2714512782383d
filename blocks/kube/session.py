"""What is asked of a Kubernetes API and changed in it: raw JSON in, raw JSON out.

Every call passes the gate with its exact text, has a deadline, and is kept as evidence by a short
account of the answer: objects hold passwords in places that nobody expects (an env value, an
annotation), so none is written down whole. The values of a Secret become known to redaction as they
are read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.kube import text
from blocks.kube.answer import (
    CHANGED,
    Answer,
    ClusterConflict,
    ClusterGone,
    ClusterLoginRefused,
    ClusterNotFound,
    Question,
    refuse_bad_answer,
)
from blocks.kube.fence import fence_annotation, refuse_later
from blocks.kube.path import Asked, asked_by, path_of, with_query
from blocks.kube.seen import learn_secrets, told
from blocks.kube.text import Object, Operation
from blocks.kube.wire import Sent, Wire
from recovery.commands import Call, changing, reading
from recovery.errors import Unreachable, UnreadableOutput
from recovery.walk import Fence, current_fence

PAGE = 500
TRIES = 5  # of a change whose object changed in between, in ways that the change does not test
LOG_BYTES_MAX = 1 << 20
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class LogOrder:
    """Which lines of a container's log are wanted, and how much of them.

    Attributes:
        container: whose.
        is_previous: of its run before.
        tail_lines: how many of the last ones; `None`: from its start.
        bytes_max: what comes of these at most; what is cut off is their end.
        is_kept: its text is kept as evidence; else the number of its lines is.
    """

    container: str
    is_previous: bool = False
    tail_lines: int | None = 500
    bytes_max: int = LOG_BYTES_MAX
    is_kept: bool = True


class KubernetesSession:
    """An open way to one cluster. Made by `KubernetesCluster.session`."""

    def __init__(self, wire: Wire, label: str, namespace: str, within_seconds: float) -> None:
        self.wire, self.label = wire, label
        self.namespace, self.within_seconds = namespace, within_seconds

    # -- looks -----------------------------------------------------------------------------------

    def get(self, path: str) -> Object:
        """Read one object, or whatever else a path leads to that is JSON.

        Raises:
            ClusterNotFound, ClusterForbidden, ClusterLoginRefused: see there.
            Unreachable: no answer in time.
        """
        with reading(f"GET {path}", self.label) as call:
            answer = self._ask(Sent("GET", path, call.command, within_seconds=self.within_seconds))
            call.exit_code = answer.status
            read = self._read(call.command, answer)
            call.answer = told(read)
            return read

    def find(self, path: str) -> Object | None:
        """Read one object; `None` where there is none. Other errors are those of `get`."""
        try:
            return self.get(path)
        except ClusterNotFound:
            return None

    def objects(self, path: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Read all objects of a path, page by page; what is selected is so by the server.

        Errors are those of `get`. Pages that ran out underneath are read again from the start.
        """
        return self.objects_and_version(path, labels=labels, fields=fields)[0]

    def objects_and_version(
        self, path: str, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """As `objects`, and the resourceVersion that a watch goes on from."""
        shown = with_query(path, labelSelector=labels, fieldSelector=fields)
        with reading(f"GET {shown}", self.label) as call:
            try:
                items, version = self._pages(call.command, path, labels, fields)
            except ClusterGone:
                items, version = self._pages(call.command, path, labels, fields)
            call.exit_code = 200
            call.answer = f"{len(items)} objects at resourceVersion {version}" + "".join(
                f"\n{told(item)}" for item in items[:20]
            )
            return items, version

    def _pages(self, command: str, path: str, labels: str, fields: str) -> tuple[list[Object], str]:
        items: list[Object] = []
        token = ""
        while True:
            selected = {"labelSelector": labels, "fieldSelector": fields, "limit": PAGE}
            page = with_query(path, **selected, **{"continue": token})
            answer = self._ask(Sent("GET", page, command, within_seconds=self.within_seconds))
            read = self._read(command, answer)
            kind = str(read.get("kind", "")).removesuffix("List")
            version = read.get("apiVersion")
            said = {"apiVersion": version, "kind": kind}  # which the items of a list do not say
            items += [{**said, **item} for item in read.get("items") or []]
            token = str(read["metadata"].get("continue") or "")
            if not token:
                return items, str(read["metadata"]["resourceVersion"])

    def logs(
        self,
        namespace: str,
        pod: str,
        order: LogOrder,
        learn: Callable[[str], object] | None = None,
    ) -> str:
        """What was ordered of a container's log, with times; bounded by lines and by bytes.

        Args:
            namespace: of the pod.
            pod: its name.
            order: which lines.
            learn: makes known what is secret in it, before it is kept as evidence.

        Raises:
            ClusterRejected: the container has not started, or has no previous run.
            ClusterNotFound, ClusterForbidden, Unreachable: as of `get`.
        """
        path = with_query(
            path_of("v1", "pods", pod, namespace=namespace, subresource="log"),
            container=order.container,
            previous=order.is_previous,
            tailLines=order.tail_lines,
            limitBytes=order.bytes_max,
            timestamps=True,
        )
        with reading(f"GET {path}", self.label) as call:
            sent = Sent("GET", path, call.command, within_seconds=self.within_seconds, accept="*/*")
            answer = self._ask(sent)
            if learn is not None:
                learn(answer.text)
            counted = f"{len(answer.text.splitlines())} lines, which are not kept"
            call.exit_code = answer.status
            call.answer = answer.text if order.is_kept else counted
            return answer.text

    def may(self, asked: Asked, user: str = "", groups: Sequence[str] = ()) -> bool:
        """Whether the account, or another one, may do this, by the API's own word.

        It is a POST, and changes nothing: the API stores no access review.
        """
        kind = "SubjectAccessReview" if user else "SelfSubjectAccessReview"
        path = path_of("authorization.k8s.io/v1", f"{kind.lower()}s")
        named = ("verb", "group", "resource", "subresource", "namespace", "name")
        wanted = {name: getattr(asked, name) for name in named if getattr(asked, name)}
        who = {"user": user, "groups": list(groups)} if user else {}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "spec": {"resourceAttributes": wanted, **who},
        }
        with reading(f"POST {path} (may {user or 'it'} {asked})", self.label) as call:
            sent = Sent("POST", path, call.command, body, within_seconds=self.within_seconds)
            answer = self._ask(sent, is_change=False)
            status = self._read(call.command, answer).get("status") or {}
            is_allowed = bool(status.get("allowed"))
            call.exit_code, call.answer = answer.status, str(is_allowed)
            if not is_allowed and self.wire.was_away:
                raise Unreachable(self.label, call.command, "no, but it was away a moment ago")
            return is_allowed

    def try_create(self, path: str, body: Mapping[str, Any]) -> None:
        """Have the API judge a new object as if it were created: rights, policies, quota, webhooks.

        It is a dry run, and changes nothing.

        Raises:
            ClusterRejected, ClusterForbidden, ClusterConflict: it would not be created.
            Unreachable: as of `get`.
        """
        tried = with_query(path, dryRun="All")
        learn_secrets(body)
        name = (body.get("metadata") or {}).get("name", "")
        with reading(f"POST {tried} (would {name} be created)", self.label) as call:
            whole = text.filled_body(body, None)
            sent = Sent("POST", tried, call.command, whole, within_seconds=self.within_seconds)
            call.exit_code = self._ask(sent, is_change=False).status
            call.answer = "it would be created"

    def version(self) -> str:
        """The version of the server, as `v1.36.2`."""
        return str(self.get("/version").get("gitVersion", ""))

    def served_version(self, group: str, *preferred: str) -> str:
        """The first of these versions that a group is served in: `batch/v1`; empty where in none.

        Without `preferred`, the one the server prefers. `batch`, `v1`, `v1beta1` finds what
        CronJobs are read by.
        """
        read = self.find(f"/apis/{group}")
        if read is None:
            return ""
        served = [str(one.get("version")) for one in read.get("versions") or []]
        if not preferred:
            return str((read.get("preferredVersion") or {}).get("groupVersion", ""))
        return next((f"{group}/{version}" for version in preferred if version in served), "")

    def resource_of(self, version: str, kind: str) -> str:
        """The name in paths of a kind (`ScaledObject`, `scaledobjects`); empty where not served."""
        root = "/apis" if "/" in version else "/api"
        read = self.find(f"{root}/{version}") or {}
        known = {
            str(one.get("kind")): str(one.get("name"))
            for one in read.get("resources") or []
            if "/" not in str(one.get("name"))
        }
        return known.get(kind, "")

    # -- changes ---------------------------------------------------------------------------------

    def patch(self, path: str, operations: Sequence[Operation]) -> Object:
        """Change an object by a JSON patch, if every `test` in it holds; return what it is now.

        The text is `kubernetes_text.patch_text`: the version as read and the fence are added. Where
        the object changed in between in ways that no operation tests, it is read and sent again.

        Raises:
            ClusterConflict: a test does not hold; nothing was changed.
            Fenced: a later attempt has changed it.
            AnswerLost: not known whether it was changed.
            ClusterRejected, ClusterForbidden, ClusterNotFound and the rest: see there.
        """
        with changing(text.patch_text(path, operations), self.label) as call:
            fence = self._fence(path)
            for n in range(TRIES):
                read = self._read_to_change(path, call.command, fence)
                if why := text.changed_since(read, operations):
                    raise ClusterConflict(self.label, call.command, 409, why, CHANGED)
                body = text.filled_patch(operations, read, fence_annotation(fence))
                sent = self._sent("PATCH", path, call.command, body, JSON_PATCH)
                if (changed := self._change(sent, is_last_try=n == TRIES - 1)) is not None:
                    call.exit_code, call.answer = 200, told(changed)
                    return changed
        raise AssertionError  # the last try returns or raises

    def merge(self, path: str, body: Mapping[str, Any]) -> Object:
        """Change an object by a merge patch, as it is now: for what a JSON patch cannot say.

        Its text is `kubernetes_text.merge_text`. Errors are those of `patch`.
        """
        with changing(text.merge_text(path, body), self.label) as call:
            fence = self._fence(path)
            for n in range(TRIES):
                read = self._read_to_change(path, call.command, fence)
                version = str(read["metadata"]["resourceVersion"])
                whole = text.filled_body(body, fence_annotation(fence), version)
                sent = self._sent("PATCH", path, call.command, whole, MERGE_PATCH)
                if (changed := self._change(sent, is_last_try=n == TRIES - 1)) is not None:
                    call.exit_code, call.answer = 200, told(changed)
                    return changed
        raise AssertionError  # as above

    def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object under a name of its own; its text is `kubernetes_text.create_text`.

        Raises:
            ClusterConflict: there is one of that name: it may be this recovery's own, look.
            AnswerLost and the rest: as of `patch`.
        """
        learn_secrets(body)
        with changing(text.create_text(path, body), self.label) as call:
            whole = text.filled_body(body, fence_annotation(self._fence(path)))
            answer = self._ask(self._sent("POST", path, call.command, whole))
            created = self._read(call.command, answer)
            call.exit_code, call.answer = answer.status, told(created)
            return created

    def delete(self, path: str, uid: str, propagation: str = "Background") -> None:
        """Delete the one object of this uid; its text is `kubernetes_text.delete_text`.

        Gone already is fine. An object of the same name and another uid is left alone.

        Raises:
            ClusterConflict: it is another object by now, or keeps changing.
            Fenced, AnswerLost and the rest: as of `patch`.
        """
        with changing(text.delete_text(path, uid, propagation), self.label) as call:
            self._delete(call, path, text.tests(uid=uid), propagation)

    def delete_where(self, path: str, operations: Sequence[Operation]) -> None:
        """Delete whichever object of this name every `test` holds for; as `delete` for the rest.

        For what is not there yet when its plan is made, as a pod. Its text is
        `kubernetes_text.delete_where_text`.
        """
        with changing(text.delete_where_text(path, operations), self.label) as call:
            self._delete(call, path, operations, "Background")

    def evict(self, path: str, uid: str) -> None:
        """Evict the pod at a path, as its budget allows; its text is `kubernetes_text.evict_text`.

        Raises:
            EvictionBlocked: a PodDisruptionBudget keeps it.
            ClusterConflict, AnswerLost and the rest: as of `patch`.
        """
        with changing(text.evict_text(path, uid), self.label) as call:
            body = text.eviction(path, uid)
            answer = self._ask(self._sent("POST", f"{path}/eviction", call.command, body))
            call.exit_code, call.answer = answer.status, "evicted"

    # -- below the gate --------------------------------------------------------------------------

    def _delete(
        self, call: Call, path: str, operations: Sequence[Operation], propagation: str
    ) -> None:
        fence = self._fence(path)
        for n in range(TRIES):
            try:
                read = self._read_to_change(path, call.command, fence)
                if why := text.changed_since(read, operations):
                    raise ClusterConflict(self.label, call.command, 409, why, CHANGED)
                uid, version = (str(read["metadata"][it]) for it in ("uid", "resourceVersion"))
                body = text.delete_options(uid, propagation, version)
                sent = self._sent("DELETE", path, call.command, body)
                if self._change(sent, is_last_try=n == TRIES - 1) is not None:
                    call.exit_code, call.answer = 200, "deleted, or being deleted"
                    return
            except ClusterNotFound:
                call.exit_code, call.answer = 404, "it is gone"
                return

    def _fence(self, path: str) -> Fence:
        return current_fence().at(f"{self.label}{path}")

    def _read_to_change(self, path: str, command: str, fence: Fence) -> Object:
        asked = Sent("GET", path, f"GET {path}", within_seconds=self.within_seconds)
        read = self._read(command, self._ask(asked))
        refuse_later(read, fence, path)
        return read

    def _sent(
        self, method: str, path: str, command: str, body: Any, content_type: str = ""
    ) -> Sent:
        kind = content_type or "application/json"
        return Sent(method, path, command, body, kind, self.within_seconds)

    def _change(self, sent: Sent, *, is_last_try: bool) -> Object | None:
        """Send a change; `None` where the object changed after it was read."""
        try:
            return self._read(sent.command, self._ask(sent))
        except ClusterConflict:
            if is_last_try:
                raise
            return None

    def _ask(self, sent: Sent, *, is_change: bool | None = None) -> Answer:
        asked = asked_by(sent.method, sent.path)
        changes = sent.is_change if is_change is None else is_change
        answer = self.wire.ask(sent)
        away = self.wire.was_away
        question = Question(self.label, sent.command, asked, changes, was_away=away)
        try:
            refuse_bad_answer(question, answer)
        except ClusterLoginRefused:
            who = self.wire.access.told_credentials()
            refuse_bad_answer(Question(self.label, sent.command, asked, changes, who), answer)
        return answer

    def _read(self, command: str, answer: Answer) -> Object:
        try:
            read = json.loads(answer.text)
        except ValueError as error:
            raise UnreadableOutput(command, answer.text) from error
        if not isinstance(read, dict):
            raise UnreadableOutput(command, answer.text)
        learn_secrets(read)
        return read
