"""A client of the tests' own, so that they do not look at the world through what they test."""

import http.client
import json
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

MERGE = "application/merge-patch+json"


class ApiSaidNo(Exception):
    """A status that is none of success; `code` is it."""

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code, self.text = code, text


@dataclass
class LabClient:
    """Asks an API as its administrator."""

    server: str
    token: str = ""
    tls: ssl.SSLContext | None = None

    def get(self, path):
        return self._ask("GET", path)

    def post(self, path, body):
        return self._ask("POST", path, body)

    def put(self, path, body):
        return self._ask("PUT", path, body)

    def patch(self, path, body, content_type=MERGE):
        return self._ask("PATCH", path, body, content_type)

    def delete(self, path, body=None):
        return self._ask("DELETE", path, body or {})

    def items(self, path):
        return self.get(path)["items"]

    def stream(self, path, closing):
        """The lines of a watch, up to its end."""
        connection = self._connection(10)
        try:
            connection.request("GET", path, headers=self._headers())
            response = connection.getresponse()
            while not closing.is_set() and (line := response.readline()):
                if line.strip():
                    yield json.loads(line)
        finally:
            connection.close()

    def _connection(self, seconds):
        parts = urlsplit(self.server)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, context=self.tls, timeout=seconds
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)

    def _headers(self, content_type="application/json"):
        login = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {**login, "Content-Type": content_type, "Accept": "application/json"}

    def is_ready(self):
        """Whether the API says so: until then it forbids what it has not read the Roles for."""
        return self._text("GET", "/readyz") == "ok"

    def may(self, user, **asked):
        """Whether a user may do what the attributes of an access review say."""
        spec = {"user": user, "groups": ["system:authenticated"], "resourceAttributes": asked}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return self.post(path, {"spec": spec})["status"]["allowed"]

    def _ask(self, *asked):
        return json.loads(self._text(*asked))

    def _text(self, method, path, body=None, content_type="application/json"):
        connection = self._connection(30)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, self._headers(content_type))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise ApiSaidNo(response.status, text)
        return text
