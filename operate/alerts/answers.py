"""What the receiver says of itself: the schemas of its OpenAPI document, and the page of it."""

from typing import Any

from jinja2 import Environment

LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
MOMENT = {"type": "string", "format": "date-time"}
STATUS_WORDS = {"type": "string", "enum": ["firing", "resolved"]}
WEBHOOK = {
    "type": "object",
    "description": "Alertmanager's webhook; versions 1 and 2 have `alert` for `alerts`.",
    "required": ["alerts"],
    "properties": {
        "version": {"type": "string"},
        "status": STATUS_WORDS,
        "receiver": {"type": "string"},
        "groupKey": {"type": "string"},
        "alerts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["labels", "startsAt"],
                "properties": {
                    "status": STATUS_WORDS,
                    "labels": LABELS,
                    "annotations": LABELS,
                    "startsAt": MOMENT,
                    "endsAt": MOMENT,
                    "fingerprint": {"type": "string", "pattern": "^[0-9A-Za-z]{0,64}$"},
                },
            },
        },
    },
}
PLAIN = {
    "type": "object",
    "description": "Alerts of any other sender. `startsAt` tells one episode from the next.",
    "required": ["alerts"],
    "properties": {
        "alerts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "startsAt"],
                "properties": {
                    "name": {"type": "string"},
                    "labels": LABELS,
                    "status": STATUS_WORDS,
                    "startsAt": MOMENT,
                    "fingerprint": {"type": "string", "pattern": "^[0-9A-Za-z]{0,64}$"},
                },
            },
        },
    },
}
POSTED = (
    ("/alertmanager", "Alertmanager's webhook", WEBHOOK),
    ("/alerts", "Alerts of any other sender", PLAIN),
)
RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "Kept on disk: nothing of it is lost from here on"},
    400: {"description": "No alert of it can be read; nothing was kept"},
    401: {"description": "Nobody is known by what was sent"},
    403: {"description": "It comes from a web page, or could, and nobody says who they are"},
    413: {"description": "It is too large"},
    415: {"description": "It is packed"},
    429: {"description": "Too many attempts by a stranger"},
    503: {"description": "It cannot be kept now, or came too slowly; send it again"},
}
HEALTH: dict[int | str, dict[str, Any]] = {503: {"description": "They cannot"}}
STATUS: dict[int | str, dict[str, Any]] = {code: RESPONSES[code] for code in (401, 429, 503)}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<title>{{ info.title }}</title>
<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{background:#f4f4f4;padding:1rem;overflow:auto}td{padding:.1rem 1rem .1rem 0}</style>
<h1>{{ info.title }} {{ info.version }}</h1><p>{{ info.description }}
The document itself: <a href="openapi.json">openapi.json</a>.</p>
{% for path, methods in paths.items() %}{% for method, one in methods.items() %}
<h2><code>{{ method | upper }} {{ path }}</code></h2><p>{{ one.summary }}</p>
<table>{% for code, answer in one.responses.items() %}
<tr><td><code>{{ code }}</code><td>{{ answer.description }}{% endfor %}</table>
{% if one.requestBody %}<pre>{{
 one.requestBody.content["application/json"].schema | tojson(indent=2) }}</pre>{% endif %}
{% endfor %}{% endfor %}</html>"""


def posted(schema: dict[str, Any]) -> dict[str, Any]:
    """Say in the OpenAPI document what is posted, and how one says who one is."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def page(document: dict[str, Any]) -> str:
    """Write the OpenAPI document as a page that needs nothing from elsewhere."""
    return Environment(autoescape=True).from_string(PAGE).render(**document)
