"""E-mail to people, as a notification block: where the server is and where its password lies."""

import asyncio
import smtplib
import ssl
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import ClassVar, Literal, Self

from prefect.blocks.abstract import NotificationBlock
from pydantic import Field, model_validator

from recovery.errors import BadInput, CommandFailed, Unreachable, unanswered
from recovery.secrecy.secret import Secret

LINE_ENDS = str.maketrans("\r\n", "  ")


class MailNotification(NotificationBlock):
    """A mail server and who is written to; the password stays in a file on the worker.

    Example:
        ```python
        mail = MailNotification(host="mail.lab", sender="recover@lab", recipients=["oncall@lab"])
        await mail.notify("it is recovered", subject="[recovered] move-grafana-to-mysql")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Mail notification"
    _block_type_slug: ClassVar[str | None] = "mail-notification"
    _description: ClassVar[str | None] = (
        "Tells people by e-mail. Holds a reference to the password on the worker, never the "
        "password."
    )

    host: str = Field(description="The mail server.")
    port: int = Field(default=587, gt=0, le=65535)
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is kept private; none: on loopback."
    )
    sender: str = Field(description="Address that the mail comes from.")
    recipients: list[str] = Field(min_length=1, description="Addresses that the mail goes to.")
    user: str = Field(default="", description="Who logs in; empty: nobody has to.")
    password_file: Path | None = Field(
        default=None, description="File of mode 0600 on the worker with the password."
    )
    ca_file: Path | None = Field(default=None, description="Its certificate authority, in PEM.")
    within_seconds: float = Field(default=8, gt=0, description="For each answer of the server.")

    @model_validator(mode="after")
    def _keeps_its_password(self) -> Self:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("a user and the file with its password belong together")
        if self.user and self.security == "none":
            raise ValueError("a password is sent over a private connection only")
        return self

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send one mail to all recipients.

        Raises:
            BadInput: the file with the password cannot be read.
            Unreachable: the server gave no answer; asking again may help.
            CommandFailed: the server would not take the mail.
        """
        message = EmailMessage()
        message["Subject"] = (subject or "").translate(LINE_ENDS)
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message.set_content(body)
        await asyncio.to_thread(self._send, message)

    def _send(self, message: EmailMessage) -> None:
        place = f"mail server {self.host}:{self.port}"
        try:
            with closing(self._connected()) as server:
                server.send_message(message)
        except smtplib.SMTPServerDisconnected as error:
            raise Unreachable(place, "a mail", str(error)) from error
        except smtplib.SMTPException as error:
            raise CommandFailed(place, "a mail", "none", str(error)) from None
        except OSError as error:
            raise unanswered(place, "a mail", str(error)) from error

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=self.ca_file)
        server: smtplib.SMTP
        if self.security == "tls":
            server = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.within_seconds, context=context
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=self.within_seconds)
        try:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.password_file is not None:
                server.login(self.user, Secret.from_file(self.password_file).reveal())
        except (smtplib.SMTPException, OSError, BadInput):
            server.close()
            raise
        return server
