"""Proof of an approver's name: a code that says yes to one plan of one recovery, and nothing else.

The approver keeps a token. A worker keeps what scrypt makes of it, in a file of mode 0600, and can
tell by it that a code was made by who has the token; the token itself and whatever could be used
again never reach the Prefect server or the journal.
"""

import hashlib
import hmac
from pathlib import Path

from recovery.errors import BadInput
from recovery.secrecy.secret import Secret

PREFIX = "scrypt:"
COST, BLOCK_SIZE, KEY_BYTES = 2**15, 8, 32
MEMORY_BYTES_MAX = 64 << 20
TOKEN_CHARS_MIN = 16
CODE_DIGITS = 24


def key_line(name: str, token: Secret) -> Secret:
    """What a worker keeps to tell codes of this approver by.

    Raises:
        BadInput: the token is so short that it could be guessed.
    """
    value = token.reveal()
    if len(value) < TOKEN_CHARS_MIN:
        seen = f"the token has fewer than {TOKEN_CHARS_MIN} characters"
        raise BadInput("--token-file", seen, "Make one with `openssl rand -hex 24`")
    key = hashlib.scrypt(
        value.encode(),
        salt=f"recover approver {_same(name)}".encode(),
        n=COST,
        r=BLOCK_SIZE,
        p=1,
        maxmem=MEMORY_BYTES_MAX,
        dklen=KEY_BYTES,
    )
    return Secret(PREFIX + key.hex())


def code_for(line: Secret, recovery_id: str, plan_hash: str, asked_key: str) -> str:
    """The code of who has the token behind this line, for one plan of one recovery."""
    key = bytes.fromhex(line.reveal().removeprefix(PREFIX))
    about = f"approve\n{recovery_id}\n{plan_hash}\n{asked_key}".encode()
    return hmac.new(key, about, hashlib.sha256).hexdigest()[:CODE_DIGITS]


def kept_line(path: Path) -> Secret:
    """Read what the worker keeps of an approver.

    Raises:
        BadInput: it cannot be read, is open to everybody, or holds something else.
    """
    line = Secret.from_file(path)
    text = line.reveal().strip()
    try:
        is_key = text.startswith(PREFIX) and len(bytes.fromhex(text[len(PREFIX) :])) == KEY_BYTES
    except ValueError:
        is_key = False
    if not is_key:
        seen = "it is no file that `recover approver NAME --token-file FILE --to FILE` wrote"
        raise BadInput(str(path), seen, "Make it anew with that, and put it here with mode 0600")
    return Secret(text)


def is_proven(path: Path, code: str, recovery_id: str, plan_hash: str, asked_key: str) -> bool:
    """Whether the code was made by who has the token, for this plan of this recovery.

    Raises:
        BadInput: what the worker keeps cannot be read.
    """
    wanted = code_for(kept_line(path), recovery_id, plan_hash, asked_key)
    return hmac.compare_digest(wanted.encode(), code.strip().lower().encode())


def _same(name: str) -> str:
    return " ".join(name.split()).casefold()
