"""Telling people through Prefect's notification blocks: a real webhook and a real mail server."""

import asyncio
import contextlib
import time
from uuid import uuid4

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from blocks.mail_notification import MailNotification
from operate.orphans.telling import tell_people
from recovery.errors import BadInput
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal
from recovery.notices.channels import channels
from recovery.notices.notice import Notice, Occasion
from recovery.notices.sending import notify, wait_until_sent
from recovery.secrecy.secret import Secret
from tests.lab.sinks import mail_sink, webhook_sink

pytestmark = pytest.mark.timeout(180)  # the first one waits for the server

PASSWORD = "correct-horse/battery+staple"  # noqa: S105 (of this test alone)
RUN = str(uuid4())
NOTICE = Notice(
    Occasion.APPROVAL_ASKED,
    f"plan 0123456789abcdef waits; the password is {PASSWORD}",
    flow="move-grafana-to-mysql",
    target="grafana",
    recovery_id="0123456789ab",
    next_command="recover approve 0123456789ab --plan 0123456789abcdef --by NAME",
    flow_run_id=RUN,
)


@pytest.fixture(scope="module")
def webhook():
    with webhook_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def mail():
    with mail_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def on_server(prefect_server, webhook, mail):
    """A server on which the blocks of all channels are saved."""
    settings = {PREFECT_API_URL: prefect_server.api_url, PREFECT_UI_URL: prefect_server.ui_url}
    with temporary_settings(settings):
        for path in ("slack", "no", "hangs"):
            CustomWebhookNotificationBlock(
                name=path,
                url=f"{webhook.url}/{path}",
                json_data={"text": "*{{subject}}*\n{{body}}", "token": "{{token}}"},
                secrets={"token": "T0KEN"},
            ).save(path, overwrite=True)
        Webhook(url=f"{webhook.url}/plain").save("plain", overwrite=True)
        for name, to in (("ops", "ops@lab"), ("nobody", "nobody@lab")):
            MailNotification(
                host="127.0.0.1",
                port=mail.port,
                security="none",
                sender="recover@lab",
                recipients=[to],
            ).save(name, overwrite=True)
        yield


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Names the channels: `told({"block": ...}, ...)`."""

    def name(*listed):
        file = tmp_path / "notifications.yaml"
        file.write_text(yaml.safe_dump({"channels": list(listed)}))
        monkeypatch.setenv("RECOVER_NOTIFICATIONS", str(file))

    return name


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(open_journal(str(tmp_path / "journal.sqlite"))) as journal:
        journal.append("0123456789ab", Kind.OPENED, {"flow": "move", "target": "grafana"})
        yield journal


def noted(journal):
    events = [e for e in journal.events("0123456789ab") if e.kind == Kind.NOTIFIED]
    return {e.body["channel"]: e.body["error"] for e in events}


@pytest.mark.usefixtures("on_server")
def test_all_channels_get_the_command_and_the_link_and_none_a_secret(told, journal, webhook, mail):
    Secret(PASSWORD)
    told(
        {"block": "custom-webhook/slack"},
        {"block": "webhook/plain", "occasions": ["approval-asked"]},
        {"block": "mail-notification/ops"},
        {"block": "custom-webhook/no", "occasions": ["recovered"]},
    )

    notify(NOTICE, journal)
    wait_until_sent(30)

    slack, plain, letter = webhook.at("/slack")[-1], webhook.at("/plain")[-1], mail.mails[-1]
    assert slack["text"].startswith("*[approval asked] move-grafana-to-mysql on grafana*")
    assert letter["subject"] == "[approval asked] move-grafana-to-mysql on grafana"
    for text in (slack["text"], str(plain), letter.get_content()):
        assert PASSWORD not in text
        assert NOTICE.next_command in text
        assert f"/runs/flow-run/{RUN}" in text
    assert noted(journal) == {
        "custom-webhook/slack": "",
        "webhook/plain": "",
        "mail-notification/ops": "",
    }


@pytest.mark.usefixtures("on_server")
def test_a_channel_that_fails_or_hangs_is_noted_and_holds_nobody_up(told, journal, webhook):
    told(
        *(
            {"block": block}
            for block in (
                "custom-webhook/no", "custom-webhook/absent", "mail-notification/nobody",
                "webhook/plain",
            )
        )
    )  # fmt: skip
    began = len(webhook.at("/plain"))

    notify(NOTICE, journal)
    wait_until_sent(60)  # until each was tried twice
    told({"block": "custom-webhook/hangs"})
    started = time.monotonic()
    notify(NOTICE, journal)
    asked_for = time.monotonic() - started
    wait_until_sent(3)

    seen = noted(journal)
    assert asked_for < 3
    assert len(webhook.at("/plain")) == began + 1
    assert seen.pop("webhook/plain") == ""
    assert "no answer within 3 s" in seen["custom-webhook/hangs"]
    assert "403" in seen["custom-webhook/no"]
    assert "550" in seen["mail-notification/nobody"]
    assert "absent" in seen["custom-webhook/absent"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("channels: [{block: slack}]", "channels.0.block"),
        ("channels: [{block: slack-webhook/a, occasions: [sometimes]}]", "channels.0.occasions.0"),
        ("channel: []", "channel"),
        ("channels: [", "RECOVER_NOTIFICATIONS"),
        ("- block: slack-webhook/a", "RECOVER_NOTIFICATIONS"),
    ],
)
def test_a_malformed_file_is_named_and_keeps_nothing_from_going_on(
    tmp_path, monkeypatch, text, named
):
    (tmp_path / "bad.yaml").write_text(text)
    monkeypatch.setenv("RECOVER_NOTIFICATIONS", str(tmp_path / "bad.yaml"))

    with pytest.raises(BadInput, match=named):
        channels()

    notify(NOTICE)
    wait_until_sent()


def test_a_password_is_named_by_its_file_and_goes_over_a_private_connection_alone(tmp_path):
    usual = {"host": "mail.lab", "sender": "a@lab", "recipients": ["b@lab"]}

    with pytest.raises(ValueError, match="belong together"):
        MailNotification(**usual, user="recover")
    with pytest.raises(ValueError, match="private connection"):
        MailNotification(
            **usual, user="recover", password_file=tmp_path / "password", security="none"
        )


def test_a_mail_server_that_speaks_no_tls_is_told_of_by_its_name(mail):
    block = MailNotification(
        host="127.0.0.1", port=mail.port, sender="a@lab", recipients=["b@lab"], security="starttls"
    )

    with pytest.raises(Exception, match=f"mail server 127.0.0.1:{mail.port}"):
        asyncio.run(block.notify("text", "subject"))


@pytest.mark.usefixtures("on_server")
def test_an_orphan_is_told_to_people_with_its_recovery(told, webhook, journal, monkeypatch):
    told({"block": "webhook/plain", "occasions": ["lost"]})
    monkeypatch.setenv("RECOVER_JOURNAL", str(journal.path))

    tell_people("the worker of attempt 1 is gone", {"recovery": "0123456789ab", "run": RUN})
    tell_people("the journal does not answer", {})
    wait_until_sent(30)

    plain = webhook.at("/plain")[-1]
    assert (plain["occasion"], plain["recovery_id"]) == ("lost", "0123456789ab")
    assert plain["next"] == "recover status 0123456789ab"
    assert noted(journal) == {"webhook/plain": ""}  # the proof for the next watch
