"""Who posts: a bearer token, a name with a password, or a signature, each kept in a file.

Every file holds one secret a line, so that an old one is still good while senders change over;
it is read anew for each request. Comparisons take the same time whatever is wrong.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import BadInput
from recovery.secrecy.secret import Secret

SIGNATURE = "x-recover-signature"
SIGNED = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")
SKEW_SECONDS = 300.0
SECRET_BYTES_MIN = 16


@dataclass(frozen=True)
class Authentication:
    """Where the secrets are. Without any of them everybody may post, which wants saying so.

    Attributes:
        bearer_file: tokens, for `Authorization: Bearer TOKEN`.
        basic_file: lines `name:password`, for `Authorization: Basic ...`.
        hmac_file: keys, for `X-Recover-Signature: t=SECONDS,v1=HEX`, the HMAC-SHA256 of
            `SECONDS.BODY`; one that is older or newer than five minutes is refused.
    """

    bearer_file: Path | None = None
    basic_file: Path | None = None
    hmac_file: Path | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anything but silence is asked for."""
        return any((self.bearer_file, self.basic_file, self.hmac_file))

    def refuse_unreadable(self) -> None:
        """See that each file can be read and holds something worth the name.

        Raises:
            BadInput: one does not.
        """
        for option, file in (
            ("--bearer-file", self.bearer_file),
            ("--basic-file", self.basic_file),
            ("--hmac-file", self.hmac_file),
        ):
            if file is None:
                continue
            for secret in _secrets(file, option):
                name, colon, password = secret.partition(b":")
                is_basic = option == "--basic-file"
                if is_basic and not (name and colon):
                    raise BadInput(option, f"a line of {file} is no name:password", "Mend it")
                if len(password if is_basic else secret) < SECRET_BYTES_MIN:
                    raise BadInput(
                        option,
                        f"a secret of {file} has fewer than {SECRET_BYTES_MIN} characters",
                        "Make one with `openssl rand -hex 32`",
                    )

    def by_headers(self, headers: Mapping[str, str]) -> str:
        """Name the sender, by kind and name; empty where the headers say nothing that is known.

        Args:
            headers: of the request, by names in small letters.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if self.bearer_file is not None and scheme.lower() == "bearer":
            return "bearer" if _is_one_of(given.strip(), _known(self.bearer_file)) else ""
        if self.basic_file is not None and scheme.lower() == "basic":
            decoded = _decoded(given.strip())
            known = _is_one_of(decoded, _known(self.basic_file))
            return f"basic {decoded.partition(':')[0]}" if known else ""
        return ""

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        """Whether there is a signature, of which only the body tells whether it is right."""
        return self.hmac_file is not None and bool(SIGNED.fullmatch(headers.get(SIGNATURE, "")))

    def is_signed_lately(self, headers: Mapping[str, str], now: float) -> bool:
        """Whether the signature claims a moment that may count; needs no body."""
        signed = SIGNED.fullmatch(headers.get(SIGNATURE, ""))
        return signed is not None and abs(now - int(signed[1])) <= SKEW_SECONDS

    def by_signature(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Name the sender by the signature of the body; empty where it is not right."""
        signed = SIGNED.fullmatch(headers.get(SIGNATURE, ""))
        return "signature" if signed and self._is_signed(signed, body, now) else ""

    def _is_signed(self, signed: re.Match[str], body: bytes, now: float) -> bool:
        if self.hmac_file is None or abs(now - int(signed[1])) > SKEW_SECONDS:
            return False
        right = [
            hmac.new(key, signed[1].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
            for key in _known(self.hmac_file)
        ]
        return _is_one_of(signed[2], right)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _is_one_of(given: str, known: list[bytes]) -> bool:
    """Compare with each of them, and in the same time whichever it is."""
    seen = hashlib.sha256(given.encode(errors="replace")).digest()
    found = [hmac.compare_digest(seen, hashlib.sha256(one).digest()) for one in known]
    return bool(given) and any(found)


def _known(file: Path) -> list[bytes]:
    try:
        return _secrets(file, "the file of secrets")
    except BadInput:  # it was there at the start: nobody is known until it is back
        return []


def _secrets(file: Path, option: str) -> list[bytes]:
    try:
        lines = [line.strip() for line in file.read_bytes().splitlines()]
    except OSError as error:
        raise BadInput(
            option, f"{file} cannot be read: {error.strerror}", "Name a file of secrets"
        ) from None
    found = [line for line in lines if line]
    if not found:
        raise BadInput(option, f"{file} is empty", "Make a secret with `openssl rand -hex 32`")
    for line in found:
        Secret(line.decode(errors="replace"))  # known from here on, hence masked wherever it shows
    return found
