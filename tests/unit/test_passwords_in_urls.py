"""Passwords that were typed into a URL: neither stored nor quoted."""

import pytest

from blocks.grafana.api import GrafanaApi
from blocks.mysql.server import MysqlServer
from blocks.postgres.server import PostgresServer
from blocks.ssh.url import fields_of
from recovery.errors import BadInput
from recovery.inputs import refuse_passwords


@pytest.mark.parametrize("url", [
    "mysql://u:aB3xyz@h/db",
    "mysql://u:aB3/xyz@h/db",
    "postgresql://u:/a@b@h:5432/db",
    "postgresql://u@h/db?sslpassword=aB3",
    "https://h/health?a=b&Password=aB3",
    "['ssh://a@h', 'ssh://b:aB3/x@h']",
])  # fmt: skip
def test_a_password_in_a_url_is_refused_before_anything_stores_it(url):
    with pytest.raises(BadInput, match="there is a password in the URL") as refused:
        refuse_passwords({"target": url})
    assert "aB3" not in str(refused.value)


@pytest.mark.parametrize("url", [
    "mysql://u@h:3306/db?password_file=/etc/a@b",
    "https://h:9090/path@v2",
    "['https://h:9090', 'a@b']",
    "ssh://[::1]:22/p@q",
    "kubeconfig:///etc/k?context=kubernetes-admin@kubernetes",
    "10:30 and mail to ops@example.org",
])  # fmt: skip
def test_what_is_no_password_is_taken_for_none(url):
    refuse_passwords({"target": url})


@pytest.mark.parametrize(("read", "scheme"), [
    (MysqlServer.from_url, "mysql"),
    (PostgresServer.from_url, "postgresql"),
    (fields_of, "ssh"),
    (GrafanaApi.from_url, "http"),
])  # fmt: skip
def test_a_password_with_a_slash_is_not_quoted_as_a_port(read, scheme):
    with pytest.raises(BadInput, match=r"port|second") as refused:
        read(f"{scheme}://u:aB3/xyz@h/db")
    assert "aB3" not in str(refused.value)
    assert refused.value.__cause__ is None
