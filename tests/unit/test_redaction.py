"""No form of a secret gets through text, values, streams or logs."""
# ruff: noqa: LOG001, S105, S311, T201, TRY301  # loggers and dice of the test alone; printing is under test

import base64
import html
import io
import itertools
import json
import logging
import random
import shlex
import string
import threading
import time
import traceback
import warnings
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import FlowRun
from prefect.logging.formatters import JsonFormatter
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler, set_api_log_sink
from prefect.logging.loggers import flow_run_logger

from blocks.grafana.answer import said_in
from blocks.keycloak.answer import Said
from blocks.kube.answer import message_in
from recovery.errors import UnreadableOutput
from recovery.notices.notice import Notice, Occasion
from recovery.secrecy.log_redaction import (
    ByteStreamRedactor,
    StreamRedactor,
    install_log_redaction,
    redacting_stdio,
)
from recovery.secrecy.redaction import (
    MASK,
    contains_secret,
    isolated_registry,
    redact,
    redact_value,
    redacted_head,
    redacted_tail,
    register,
)
from recovery.secrecy.secret import Secret

PASSWORD = "pa55 w\"o'r/d\\+é&<x>"


@pytest.fixture(autouse=True)
def _no_secrets_known():
    with isolated_registry():
        yield


@pytest.fixture
def logs_are_redacted(monkeypatch):
    """Installed for the test alone: other tests look at records as they are made."""
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    install_log_redaction()


def percent_lower(text):
    return (
        "".join(
            chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02x}"
            for byte in text.encode("utf-8", "surrogatepass")
        )
        .replace("%2d", "-")
        .replace("%5f", "_")
        .replace("%2e", ".")
        .replace("%7e", "~")
    )


def b64(data):
    return base64.b64encode(data).decode()


def utf8(text):
    return text.encode("utf-8", "surrogatepass")


def quoted(text, safe=""):
    return quote(text, safe=safe, errors="surrogatepass")


ENCODINGS = {
    "raw": str,
    "json": json.dumps,
    "json, non-ascii": lambda s: json.dumps(s, ensure_ascii=False),
    "json in json": lambda s: json.dumps(json.dumps({"password": s})),
    "repr": repr,
    "repr with both quotes": lambda s: repr(f"'{s}\""),
    "repr of bytes": lambda s: repr(utf8(s)),
    "quote": lambda s: quoted(s, "/"),
    "quote all": quoted,
    "quote_plus": lambda s: quote_plus(s, errors="surrogatepass"),
    "quote, lower": percent_lower,
    "quote twice": lambda s: quoted(quoted(s)),
    "json, quoted": lambda s: quoted(json.dumps({"a": s})),
    "shell": shlex.quote,
    "shell in double quotes": lambda s: s.translate(str.maketrans({c: "\\" + c for c in '\\"$`'})),
    "sql, quotes doubled": lambda s: s.replace("'", "''"),
    "sql, backslashes": lambda s: s.replace("\\", "\\\\").replace("'", "\\'"),
    "html": html.escape,
    "html, no quotes": lambda s: html.escape(s, quote=False),
    "base64": lambda s: b64(utf8(s)),
    "basic authentication": lambda s: "Basic " + b64(b"admin:" + utf8(s)),
    "base64, offset 1": lambda s: b64(b"x" + utf8(s) + b"yz"),
    "base64, offset 2": lambda s: b64(b"xy" + utf8(s) + b"z"),
    "base64, url-safe": lambda s: base64.urlsafe_b64encode(b"ab:" + utf8(s)).decode(),
    "base64, quoted": lambda s: quoted(b64(b"u:" + utf8(s))),
    "registry credentials": lambda s: b64(
        json.dumps({"auths": {"r": {"auth": b64(b"user:" + utf8(s))}}}).encode()
    ),
    "json in base64": lambda s: b64(json.dumps({"password": s}).encode()),
    "hex": lambda s: utf8(s).hex(),
    "HEX": lambda s: "0X" + utf8(s).hex().upper(),
    "powershell": lambda s: b64(f"$p = '{s}'".encode("utf-16-le", "surrogatepass")),
}


def forms(secret):
    """What must not be found in clean text: the part of each form that is the secret's alone."""
    data = utf8(secret)
    yield from (secret, json.dumps(secret)[1:-1], quoted(secret), data.hex())
    for offset in range(3):
        encoded = b64(b"\0" * offset + data)
        yield encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]


secrets_ = st.one_of(
    st.text(st.characters(), min_size=4, max_size=30),
    st.text(st.sampled_from("ab'\"\\/+%&<é\n\r *$"), min_size=4, max_size=12),
    st.text(string.ascii_letters + string.digits, min_size=4, max_size=24),
).filter(lambda s: len(s.strip()) >= 4)
texts = st.one_of(st.text(max_size=40), st.text(st.sampled_from("ab'\"\\/+%&<é\n *="), max_size=20))
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def chunks_of(text, cuts):
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@quick
@given(secrets_, texts, texts, st.sampled_from(sorted(ENCODINGS)))
def test_no_form_survives_and_a_second_pass_changes_nothing(secret, before, after, encoding):
    with isolated_registry():
        register(secret)
        written = ENCODINGS[encoding](secret)
        clean = redact(before + written + after)

        assert not any(form in clean for form in forms(secret))
        assert MASK in clean
        assert redact(clean) == clean
        assert not contains_secret(clean)
        assert contains_secret(before + written + after)


@quick
@given(
    st.lists(secrets_, min_size=1, max_size=3),
    st.lists(texts, min_size=1, max_size=4),
    st.lists(st.sampled_from(sorted(ENCODINGS)), min_size=3, max_size=3),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_no_form_survives_any_chunking(secrets, texts, encodings, cuts):
    with isolated_registry():
        for secret in secrets:
            register(secret)
        parts = [
            ENCODINGS[e](s) + t for s, t, e in zip(secrets, texts * 3, encodings, strict=False)
        ]
        text = "".join(parts)
        stream = StreamRedactor()
        shown = "".join([*(stream.feed(c) for c in chunks_of(text, cuts)), stream.finish()])

        assert not contains_secret(shown)
        assert not any(form in shown for secret in secrets for form in forms(secret))


@quick
@given(st.text(string.ascii_letters + string.digits, min_size=6, max_size=16), st.data())
def test_a_stream_shows_the_same_as_the_whole_text(secret, data):
    with isolated_registry():
        register(secret)
        text = " and ".join(
            encode(secret) for encode in data.draw(st.permutations(list(ENCODINGS.values())))[:4]
        )
        cuts = data.draw(st.lists(st.integers(0, 2000), max_size=20))
        stream, byte_stream = StreamRedactor(), ByteStreamRedactor()
        shown = "".join([*(stream.feed(c) for c in chunks_of(text, cuts)), stream.finish()])
        pieces = chunks_of(text.encode(), cuts)
        from_bytes = [*(byte_stream.feed(c) for c in pieces), byte_stream.finish()]

        assert shown == redact(text)
        assert "".join(from_bytes) == redact(text)


@quick
@given(st.text(), st.lists(st.text("XYZ#", min_size=8, max_size=12), max_size=5))
def test_text_without_secrets_is_unchanged(text, secrets):
    assume(not set("XYZ#") & set(text))
    with isolated_registry():
        for secret in secrets:
            register(secret)
        stream = StreamRedactor()

        assert redact(text) == text
        assert stream.feed(text) + stream.finish() == text


def test_fifty_secrets_leak_in_no_encoding():
    dice = random.Random(7)
    alphabets = (
        string.ascii_letters + string.digits,
        string.printable[:94],
        "äöü€漢字😀'\"\\&+/ ab",
    )
    secrets = [
        "x" + "".join(dice.choices(alphabets[n % 3], k=dice.randrange(7, 40))) + "y"
        for n in range(50)
    ]
    for secret in secrets:
        register(secret)

    leaks = []
    for secret in secrets:
        for name, encode in ENCODINGS.items():
            for text in (encode(secret), f"a={encode(secret)} b", f"{encode(secret)}\n" * 2):
                clean = redact(text)
                if any(form in clean for form in forms(secret)) or MASK not in clean:
                    leaks.append((name, secret, clean))

    assert not leaks


def test_base64_leaves_no_character_that_holds_bits_of_the_secret():
    register("hunter2hunter2")
    for n in range(6):
        encoded = b64(b"u" * n + b"hunter2hunter2")

        assert redact(f"[{encoded}]") == f"[{encoded[: n * 8 // 6]}{MASK}]"


def test_a_secret_of_many_lines_is_caught_whole_and_line_by_line():
    body = "MIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\nBK=="
    key = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"
    register(key)

    assert redact(f"key: {key}!") == f"key: {MASK}!"
    assert redact(key.replace("\n", "\r\n")) == MASK
    assert redact(json.dumps(key)) == f'"{MASK}"'
    assert redact("line 2: MIIEvQIBADANBgkq") == f"line 2: {MASK}"
    assert redact(b64(key.encode())) == MASK
    assert redact("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_short_secrets_are_masked_as_whole_words_only():
    register("ab")

    assert redact("ab cab abc ab, _ab (ab) éab") == "*** cab abc ***, _ab (***) éab"


def test_blank_values_and_the_mask_itself_are_no_secrets():
    for value in ("", " ", "\n", "*", "**", "***"):
        register(value)

    assert redact("a * b ** c *** \n") == "a * b ** c *** \n"


def test_overlapping_secrets_leave_nothing_of_either():
    register("abcdefgh")
    register("efghijkl")

    assert redact("-abcdefghijkl-") == f"-{MASK}-"


def test_a_secret_registered_later_applies_at_once():
    assert redact("s3cr3t-value") == "s3cr3t-value"
    stream = StreamRedactor()
    assert stream.feed("s3cr3t-value, ") == "s3cr3t-value, "

    Secret("s3cr3t-value")

    assert redact("s3cr3t-value") == MASK
    assert stream.feed("s3cr3t-value, ") == f"{MASK}, "


def test_a_stream_holds_back_only_what_may_be_a_secret():
    register("s3cr3t-value")
    stream = StreamRedactor()

    assert stream.feed("Continue? [y/N] ") == "Continue? [y/N] "
    assert stream.feed("is s3cr3t-v") == "is "
    assert stream.feed("ery nice.\n") == "s3cr3t-very nice.\n"
    assert stream.feed("s3cr3t-v") == ""
    assert stream.feed("alue.\n") == f"{MASK}.\n"
    assert stream.finish() == ""


def test_bytes_that_are_no_text_are_replaced():
    register("geheim-ä-wort")
    stream = ByteStreamRedactor()
    data = b"\xff geheim-\xc3\xa4-wort \xc3"

    shown = "".join(stream.feed(data[n : n + 1]) for n in range(len(data))) + stream.finish()

    assert shown == f"\ufffd {MASK} \ufffd"


def test_what_is_cut_to_its_beginning_or_end_holds_no_piece_of_a_secret():
    secret = "Sup3rS3cretPassw0rd-0123456789"
    with isolated_registry():
        register(secret)
        shown = [
            *(redacted_head("a" * n + secret, 40) for n in range(60)),
            *(redacted_tail(secret + "a" * n, 40) for n in range(60)),
            *(str(UnreadableOutput("info", "a" * n + secret)) for n in range(470, 510)),
            Said(500, "a" * 290 + secret).told,
            Said(500, json.dumps({"error": "a" * 290 + secret})).told,
            said_in("a" * 490 + secret),
            said_in(json.dumps({"message": "a" * 490 + secret})),
            message_in("a" * 1990 + secret),
            message_in(json.dumps({"kind": "Status", "message": "a" * 1990 + secret})),
            Notice(Occasion.FAILED, "a" * 1490 + secret).body,
            Notice(Occasion.FAILED, "a" * 1490 + secret).as_plain()["text"],
        ]

    assert not [text for text in shown if secret[:5] in text or secret[-5:] in text]
    assert redacted_head("a" * 50, 40) == "a" * 40
    assert redacted_tail("ab" * 25, 4) == "abab"


def test_values_are_redacted_at_any_depth():
    secret = Secret(PASSWORD)
    register("12345678")
    value = {
        "a": [PASSWORD, {"b": (f"x{PASSWORD}", 1, None, True, 2.5)}],
        PASSWORD: b"-" + PASSWORD.encode(),
        f"{PASSWORD}\n": secret,
        "set": {PASSWORD},
        "number": 12345678,
    }

    assert redact_value(value) == {
        "a": [MASK, {"b": (f"x{MASK}", 1, None, True, 2.5)}],
        MASK: b"-***",
        f"{MASK}\n": MASK,
        "set": {MASK},
        "number": MASK,
    }
    assert redact_value({"s3cret-a": 1}) == {"s3cret-a": 1}


def test_keys_that_differ_only_in_secrets_are_all_kept():
    register("first-secret")
    register("second-secret")

    assert redact_value({"first-secret": 1, "second-secret": 2}) == {MASK: 1, f"{MASK} (2)": 2}


def test_a_long_text_without_a_hit_takes_milliseconds():
    dice = random.Random(3)
    for _ in range(50):
        register("".join(dice.choices(string.ascii_letters + string.digits, k=20)))
    line = "2026-01-01T00:00:00Z INFO kubelet node-7 started pod grafana-5f6d, password check ok\n"
    text = (line * 2000)[:100_000]
    redact(text)

    best = min(_seconds(lambda: redact(text)) for _ in range(10))

    assert best < 0.005, f"{best * 1000:.2f} ms"  # measured 0.4 ms; the rest is for a busy machine


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_secrets_may_be_registered_and_looked_for_in_many_threads():
    failed = []

    def work(n):
        for m in range(20):
            register(f"secret-{n}-{m}-value")
            if redact(f"a secret-{n}-{m}-value b") != "a *** b":
                failed.append((n, m))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed


def logger_with(handler):
    logger = logging.Logger("test-of-redaction")
    logger.addHandler(handler)
    return logger


def test_a_log_record_shows_no_secret_by_any_way(logs_are_redacted):
    register(PASSWORD)
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    handler.setFormatter(JsonFormatter("default", None, "%"))
    logger = logger_with(handler)

    class Answer:
        def __repr__(self):
            return f"<answer {PASSWORD}>"

    logger.warning("raw %s", PASSWORD)
    logger.warning("in text " + PASSWORD + " 100%")  # noqa: G003
    logger.warning("object %r", Answer(), extra={"cmd": ["x", PASSWORD], "object": Answer()})
    logger.warning("mapping %(a)s", {"a": PASSWORD})
    logger.warning("wrong %d", PASSWORD, stack_info=True)
    logger.warning(Answer())
    try:
        raise ValueError(PASSWORD) from OSError(2, "no", PASSWORD)
    except ValueError:
        logger.exception("failed")

    assert shown.getvalue().count("\n") == 7, shown.getvalue()
    assert not contains_secret(shown.getvalue())
    assert "FileNotFoundError: [Errno 2] no: '***'" in shown.getvalue()
    assert "100%" in shown.getvalue()


def test_a_clean_log_record_is_left_as_it_is(logs_are_redacted):
    register(PASSWORD)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    error = ValueError("harmless")
    answer = object()

    logger_with(handler).warning("%s %r", "a", 1, exc_info=error, extra={"answer": answer})

    assert (records[0].msg, records[0].args) == ("%s %r", ("a", 1))
    assert records[0].exc_info[1] is error
    assert records[0].answer is answer


def test_a_record_that_cannot_be_redacted_is_withheld_and_nothing_is_raised(logs_are_redacted):
    register(PASSWORD)

    class Hostile:
        def __repr__(self):
            raise ZeroDivisionError

    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    handler.setFormatter(logging.Formatter("%(message)s %(thing)s"))

    logger_with(handler).warning("about %s", PASSWORD, extra={"thing": Hostile()})

    assert "withheld: ZeroDivisionError" in shown.getvalue()
    assert not contains_secret(shown.getvalue())


def test_installing_twice_is_installing_once(logs_are_redacted):
    before = logging.Logger.callHandlers, warnings.formatwarning

    install_log_redaction()

    assert (logging.Logger.callHandlers, warnings.formatwarning) == before


def test_what_prefect_prints_and_sends_to_its_server_is_redacted(logs_are_redacted):
    register(PASSWORD)
    sent, printed = [], io.StringIO()
    run = FlowRun(flow_id="00000000-0000-0000-0000-000000000000", name=f"run {PASSWORD}")
    adapter = flow_run_logger(run)
    handlers = [APILogHandler(), PrefectConsoleHandler(stream=printed)]
    handlers[1].setFormatter(logging.Formatter("%(flow_run_name)s %(message)s"))
    before = adapter.logger.handlers, adapter.logger.propagate, adapter.logger.level
    adapter.logger.handlers, adapter.logger.propagate = handlers, False
    adapter.logger.setLevel(logging.INFO)
    set_api_log_sink(sent.append)
    try:
        adapter.info("password is %s", PASSWORD)
        try:
            raise RuntimeError(PASSWORD)
        except RuntimeError:
            adapter.exception("failed with %s", b64(b"admin:" + PASSWORD.encode()))
    finally:
        set_api_log_sink(None)
        adapter.logger.handlers, adapter.logger.propagate, adapter.logger.level = before

    assert [log["message"].splitlines()[0][:16] for log in sent] == [
        "password is ***",
        "failed with YWRt",
    ]
    assert "RuntimeError: ***" in sent[1]["message"]
    assert "RuntimeError: ***" in printed.getvalue()
    assert not contains_secret(json.dumps(sent) + printed.getvalue())


def test_a_warning_is_printed_and_logged_redacted(logs_are_redacted, capsys):
    register(PASSWORD)

    text = warnings.formatwarning(UserWarning(PASSWORD), UserWarning, "file.py", 3, PASSWORD)

    assert not contains_secret(text)
    assert "UserWarning: ***" in text


def test_printing_is_redacted_across_writes(capsys):
    register(PASSWORD)

    with redacting_stdio():
        print(PASSWORD[:5], end="")
        print(PASSWORD[5:], flush=True)
        print("done", end="")
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            traceback.print_exc()

    out, err = capsys.readouterr()
    assert out == f"{MASK}\ndone"
    assert "ValueError: ***" in err
    assert not contains_secret(err)
