"""A host as a URL: `ssh://user@host:port/path?host_key=SHA256:…&key_file=…&jump=…`."""

from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from recovery.errors import BadInput

USAGE = "Write it as ssh://user@host:port/path?host_key=SHA256:…&key_file=…"
REFERENCES = ("file", "env", "block")  # kinds of references to a secret
OPTIONS = {
    "known_hosts": "known_hosts_file",
    "host_key": "host_key",
    **{
        f"{secret}_{kind}": f"{secret}_{kind}"
        for secret in ("key", "passphrase", "password", "sudo_password")
        for kind in REFERENCES
    },
    "jump": "jump",
}


def fields_of(url: str, field: str = "ssh URL") -> dict[str, object]:
    """The fields of a host block that a URL gives; the path is not the host's.

    Raises:
        BadInput: it is no such URL; says which part is wrong, and never repeats a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a password with a slash in it
        raise BadInput(field, "it has no valid port", USAGE) from None
    if parts.scheme != "ssh" or not parts.hostname or parts.fragment:
        shown = url.partition("?")[0].rpartition("@")[2]
        raise BadInput(field, f"{shown!r} is no ssh URL", USAGE)
    if parts.password is not None:
        remedy = "Name a file with ?password_file=… instead"
        raise BadInput(field, "it holds a password", remedy)
    fields: dict[str, object] = {
        "address": parts.hostname,
        "user": unquote(parts.username or ""),
    }
    if port is not None:
        fields["port"] = port
    jumps: list[str] = []
    for option in filter(None, parts.query.split("&")):
        name, _, value = option.partition("=")
        if name not in OPTIONS or not value:
            known = ", ".join(OPTIONS)
            raise BadInput(field, f"unknown or empty option {name!r}", f"Known: {known}")
        if name == "jump":
            jumps.append(unquote(value))
        elif OPTIONS[name] in fields:
            raise BadInput(field, f"option {name!r} is given twice", "Give it once")
        else:
            fields[OPTIONS[name]] = unquote(value)  # a + is a plus here: fingerprints have some
    if jumps:
        fields["jump"] = jumps
    return fields


def as_bad_input(error: ValidationError, field: str = "ssh URL") -> BadInput:
    """The first thing pydantic found wrong, as our own error."""
    first = error.errors()[0]
    place = ", ".join([field, *(str(part) for part in first["loc"])])
    return BadInput(place, first["msg"].removeprefix("Value error, "), USAGE)


def path_in_url(url: str) -> str:
    """The path of an `ssh://host/path` URL, absolute on the host.

    Raises:
        BadInput: it has none.
    """
    path = unquote(urlsplit(url).path)
    if path in ("", "/"):
        raise BadInput("ssh URL", "it names no file", "Write it as ssh://user@host:port/path")
    return path
