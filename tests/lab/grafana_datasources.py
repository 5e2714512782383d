"""The data sources of the stand-in Grafana, and what it says of their health.

Statuses, messages and fields are those of `pkg/api/datasources.go` of Grafana 11. Health is no
invention: what is behind the data source is asked, as Grafana asks it.
"""

import copy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

NOT_FOUND = (404, {"message": "Data source not found"})
UNKNOWN_ADDRESS = (404, {"message": "Not found"})
LISTED_FIELDS = (
    "id", "uid", "orgId", "name", "type", "access", "url", "user", "database", "basicAuth",
    "isDefault", "jsonData", "readOnly",
)  # fmt: skip
SHOWN_FIELDS = (*LISTED_FIELDS, "basicAuthUser", "withCredentials", "version")
OLD_VERSION = "Datasource has already been updated by someone else. Please reload and try again"
Answer = tuple[int, Any]


@dataclass
class StandInDatasources:
    """What is stored: fields, and under `secrets` what Grafana would encrypt."""

    release: int = 11
    stored: list[dict[str, Any]] = field(default_factory=list)
    numbers: int = 0

    def add(self, **fields: Any) -> dict[str, Any]:
        """Put a data source there, as it is created without the API."""
        self.numbers += 1
        bare = {"orgId": 1, "access": "proxy", "user": "", "database": "", "basicAuth": False,
                "basicAuthUser": "", "withCredentials": False, "isDefault": False, "version": 1,
                "jsonData": {}, "readOnly": False, "secrets": {}, "plain": {}}  # fmt: skip
        one = {**bare, "id": self.numbers, "uid": f"uid{self.numbers}", **fields}
        self.stored.append(one)
        return one

    def named(self, name: str) -> dict[str, Any] | None:
        return next((one for one in self.stored if one["name"] == name), None)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """Return status and body of an answer to a request below `/api/datasources`."""
        parts = urlsplit(path)
        place = [unquote(one) for one in parts.path.strip("/").split("/")[2:]]
        if not place:
            return self._create(body) if method == "POST" else (200, self._listed())
        if place[0] == "proxy":
            return self._proxied(place[1:], parts.query)
        kind, value, *rest = place if place[0] in {"uid", "name"} else ("id", *place)
        if kind == "uid" and self.release < 9:
            return UNKNOWN_ADDRESS
        one = self._found(kind, value)
        if rest:
            return self._health(one) if rest == ["health"] else UNKNOWN_ADDRESS
        return NOT_FOUND if one is None else self._answer_about(one, method, body)

    def _answer_about(self, one: dict[str, Any], method: str, body: Any) -> Answer:
        if method == "PUT":
            return self._change(one, body)
        return self._delete(one) if method == "DELETE" else (200, self._shown(one))

    def _found(self, kind: str, value: str) -> dict[str, Any] | None:
        return next((one for one in self.stored if str(one[kind]) == value), None)

    def _listed(self) -> list[dict[str, Any]]:
        by_name = sorted(self.stored, key=lambda one: one["name"].lower())
        return [self._without_uid({n: one[n] for n in LISTED_FIELDS}) for one in by_name]

    def _shown(self, one: dict[str, Any]) -> dict[str, Any]:
        shown = copy.deepcopy({name: one[name] for name in SHOWN_FIELDS})
        shown["secureJsonFields"] = {name: True for name, value in one["secrets"].items() if value}
        if self.release < 8:
            shown |= {"password": "", "basicAuthPassword": "", **one["plain"]}
        return self._without_uid(shown)

    def _without_uid(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {**shown, "uid": ""} if self.release < 8 else shown

    def _create(self, body: dict[str, Any]) -> Answer:
        if self.named(body["name"]):
            return 409, {"message": "data source with the same name already exists"}
        if any(one["uid"] == body.get("uid") for one in self.stored):
            return 409, {"message": "data source with the same uid already exists"}
        one = self.add(**{name: body[name] for name in SHOWN_FIELDS if name in body})
        one |= {"version": 1, "readOnly": False, "secrets": dict(body.get("secureJsonData") or {})}
        self._keep_one_default(one)
        return 200, self._told("Datasource added", one)

    def _change(self, one: dict[str, Any], body: dict[str, Any]) -> Answer:
        if one["readOnly"]:
            return 403, {"message": "Cannot update read-only data source"}
        if body.get("version") and body["version"] < one["version"]:
            return 409, {"message": OLD_VERSION}
        version = (body.get("version") or one["version"]) + 1
        taken = [name for name in SHOWN_FIELDS if name not in {"id", "readOnly"} and name in body]
        one |= {name: body[name] for name in taken}
        one["version"] = version
        one["secrets"] = {**one["secrets"], **(body.get("secureJsonData") or {})}
        one["plain"] = {name: body.get(name, "") for name in one["plain"]}
        self._keep_one_default(one)
        return 200, self._told("Datasource updated", one)

    def _delete(self, one: dict[str, Any]) -> Answer:
        if one["readOnly"]:
            return 403, {"message": "Cannot delete read-only data source"}
        self.stored.remove(one)
        return 200, {"message": "Data source deleted", "id": one["id"]}

    def _keep_one_default(self, one: dict[str, Any]) -> None:
        if one["isDefault"]:
            for other in self.stored:
                other["isDefault"] = other is one

    def _told(self, message: str, one: dict[str, Any]) -> dict[str, Any]:
        shown = self._shown(one)
        return {"message": message, "id": one["id"], "name": one["name"], "datasource": shown}

    # -- what is behind it -----------------------------------------------------------------------

    def _health(self, one: dict[str, Any] | None) -> Answer:
        if self.release < 8:
            return UNKNOWN_ADDRESS
        if one is None:
            return 500, {"message": "Unable to load datasource metadata"}
        if one["type"] != "influxdb":  # a plugin without a health of its own
            return UNKNOWN_ADDRESS
        database = one["jsonData"].get("dbName") or one["database"]
        try:
            answer = self._ask(one, "/query", {"db": database, "q": "SHOW MEASUREMENTS"})
        except httpx.HTTPError as error:
            host = urlsplit(one["url"]).hostname
            is_unknown = "not known" in str(error) or "resol" in str(error)
            why = f"lookup {host}: no such host" if is_unknown else "connection refused"
            told = f'Post "{one["url"]}/query": dial tcp: {why}'
            return 400, {"status": "ERROR", "message": told}
        wrong = _error_in(answer)
        if wrong:
            return 400, {"status": "ERROR", "message": f"error reading influxDB: {wrong}"}
        series = answer.json()["results"][0].get("series") or [{"values": []}]
        told = f"datasource is working. {len(series[0]['values'])} measurements found"
        return 200, {"status": "OK", "message": told}

    def _proxied(self, place: list[str], query: str) -> Answer:
        kind = "uid" if place[0] == "uid" else "id"
        rest = place[1:] if kind == "uid" else place
        if kind == "uid" and self.release < 9:
            return UNKNOWN_ADDRESS
        one = self._found(kind, rest[0])
        if one is None:
            return 404, {"message": "Unable to find datasource"}
        try:
            answer = self._ask(one, "/" + "/".join(rest[1:]), dict(parse_qsl(query)))
        except httpx.HTTPError:
            return 502, {"message": "Bad Gateway"}
        if answer.status_code == 401:
            return 400, {"message": "Authentication to data source failed"}
        is_json = "json" in answer.headers.get("content-type", "")
        return answer.status_code, answer.json() if is_json else answer.text

    @staticmethod
    def _ask(one: dict[str, Any], path: str, query: dict[str, str]) -> httpx.Response:
        secrets = {**one["plain"], **one["secrets"]}
        user, password = one["user"], secrets.get("password", "")
        if one["basicAuth"]:
            user, password = one["basicAuthUser"], secrets.get("basicAuthPassword", "")
        login = httpx.BasicAuth(user, password) if user else None
        with httpx.Client(timeout=5, trust_env=False) as client:
            return client.get(one["url"] + path, params=query, auth=login)


def _error_in(answer: httpx.Response) -> str:
    said = answer.json()
    inner = [said, *(said.get("results") or [])]
    return next((one["error"] for one in inner if one.get("error")), "")
