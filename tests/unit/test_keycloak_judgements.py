"""What is made of the log, the variables and the answers of a Keycloak."""

import base64
import json

import pytest

from blocks.keycloak.answer import (
    KeycloakHttpsRequired,
    KeycloakLoginRefused,
    KeycloakNotFound,
    KeycloakPermissionMissing,
    Said,
    claims_of,
    refuse_error,
    refuse_login,
    token_refused,
)
from blocks.kube.seen import is_a_name
from blocks.postgres.answer import ConnectionAnswer
from recovery.errors import CommandFailed, Unreachable
from tasks.database_login.causes import LOCKED, cause_in, remedy_for
from tasks.database_login.environment import Variable, variables_of
from tasks.database_login.generations import pod_login
from tasks.settings.order import ObjectKind

# The lines as the JDBC driver, WildFly, Quarkus and Liquibase print them.
LINES = {
    'Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed for user "'
    'keycloak"': ConnectionAnswer.PASSWORD_REFUSED,
    'Caused by: org.postgresql.util.PSQLException: FATAL: no pg_hba.conf entry for host "10.1.2.3",'
    ' user "keycloak", database "keycloak", no encryption': ConnectionAnswer.NO_HBA_ENTRY,
    'ERROR: FATAL: database "keycloak" does not exist': ConnectionAnswer.DATABASE_MISSING,
    'ERROR: FATAL: role "keycloak" does not exist': ConnectionAnswer.LOGIN_REFUSED,
    "Caused by: java.net.UnknownHostException: keycloak-db": ConnectionAnswer.NAME_NOT_RESOLVED,
    "Caused by: org.postgresql.util.PSQLException: Connection to db:5432 refused. Check that the "
    "hostname and port are correct": ConnectionAnswer.REFUSED,
    "Caused by: java.net.SocketTimeoutException: connect timed out": ConnectionAnswer.TIMED_OUT,
    "Caused by: FATAL: sorry, too many clients already": ConnectionAnswer.TOO_MANY_CLIENTS,
    "ERROR The server does not support SSL.": ConnectionAnswer.TLS_NOT_OFFERED,
    "INFO  [liquibase.lockservice] Waiting for changelog lock....": LOCKED,
    "LockException: Could not acquire change log lock. Currently locked by keycloak-0": LOCKED,
}


@pytest.mark.parametrize(("line", "cause"), LINES.items())
def test_a_line_of_the_log_tells_its_cause(line, cause):
    assert cause_in(f"started\n{line}\n at org.x.Y(Y.java:1)\n") == (cause, line[:200])
    assert remedy_for(cause)


def test_the_last_cause_in_a_log_counts_and_other_lines_tell_none():
    first, *_, last = LINES
    assert cause_in(f"{first}\n{last}\n")[0] == LOCKED
    assert cause_in("09:41 INFO started in 4 s\nERROR no such theme\n") == ("", "")


def test_the_last_source_of_a_variable_wins_and_env_wins_over_all():
    container = {
        "envFrom": [{"secretRef": {"name": "old"}}, {"configMapRef": {"name": "c"}, "prefix": "K"}],
        "env": [
            {"name": "KC", "valueFrom": {"secretKeyRef": {"name": "new", "key": "pw"}}},
            {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "new", "key": "no"}}},
            {"name": "PLAIN", "value": "x"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
    }
    objects = {
        (ObjectKind.SECRET, "old"): {"A": "1", "KC": "old", "GONE": "old"},
        (ObjectKind.CONFIG_MAP, "c"): {"C": "c", "B": "2"},
        (ObjectKind.SECRET, "new"): {"pw": "new"},
    }

    found = variables_of(
        container, {"A", "KC", "KB", "GONE", "PLAIN", "POD"}, lambda k, n: objects[k, n]
    )

    assert found == {
        "A": Variable("1", "secret/old", "A"),
        "KB": Variable("2", "configmap/c", "B"),
        "KC": Variable("new", "secret/new", "pw"),
        "PLAIN": Variable("x"),
    }


@pytest.mark.parametrize(
    ("variables", "read"),
    [
        (
            {"DB_ADDR": "pg", "DB_PORT": "6432", "DB_USER": "kc", "DB_PASSWORD": "p"},
            ("pg", 6432, "keycloak", "kc", ""),
        ),
        (
            {"KC_DB_URL_HOST": "pg", "KC_DB_USERNAME": "kc", "KC_DB_PASSWORD": "p"},
            ("pg", 5432, "keycloak", "kc", ""),
        ),
        (
            {
                "KC_DB_URL": "jdbc:postgresql://a:6000,b/sso?sslmode=require",
                "KC_DB_PASSWORD": "p",
            },
            ("a", 6000, "sso", "keycloak", "require"),
        ),
        ({"DB_USER": "kc"}, ("postgres", 5432, "keycloak", "kc", "")),
    ],
)
def test_the_variables_of_either_generation_tell_the_login(variables, read):
    login = pod_login({name: Variable(value) for name, value in variables.items()})

    assert (login.host, login.port, login.database, login.user, login.sslmode) == read
    assert (login.password is None) == ("DB_PASSWORD" not in "".join(variables))


def test_other_variables_are_no_login():
    assert pod_login({"DB_ADDR": Variable("pg")}) is None
    assert pod_login({"KC_DB": Variable("postgres")}) is None


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": "HTTP 401 Unauthorized"}, KeycloakLoginRefused),
        (403, {"error": "HTTP 403 Forbidden"}, KeycloakPermissionMissing),
        (403, {"error": "invalid_request", "error_description": "HTTPS required"},
         KeycloakHttpsRequired),
        (404, {"error": "Realm not found."}, KeycloakNotFound),
        (400, {"errorMessage": "Redirect URIs use an invalid scheme"}, CommandFailed),
        (503, None, Unreachable),
    ],
)  # fmt: skip
def test_an_error_answer_is_named_by_what_to_do(status, body, error):
    with pytest.raises(error):
        refuse_error("http://sso", "GET /", Said(status, "" if body is None else json.dumps(body)))


def test_a_log_in_that_is_refused_is_told_from_a_realm_that_wants_https():
    wrong = {"error": "invalid_grant", "error_description": "Invalid user credentials"}
    https = {"error": "invalid_request", "error_description": "HTTPS required"}

    with pytest.raises(KeycloakLoginRefused):
        refuse_login("http://sso", "POST", Said(401, json.dumps(wrong)))
    with pytest.raises(KeycloakHttpsRequired):
        refuse_login("http://sso", "POST", Said(403, json.dumps(https)))


def test_a_refused_secret_is_known_by_its_code_and_not_by_its_words():
    for status in (400, 401):
        for code in ("invalid_client", "unauthorized_client"):
            assert token_refused(Said(status, json.dumps({"error": code})))
    assert not token_refused(Said(403, json.dumps({"error": "invalid_client"})))
    assert not token_refused(Said(400, json.dumps({"error": "invalid_request"})))
    assert not token_refused(Said(502, "<html>"))


def test_the_claims_of_a_token_are_read_and_those_of_no_token_are_none():
    body = base64.urlsafe_b64encode(b'{"iss":"http://sso/realms/divoc"}').decode().rstrip("=")

    assert claims_of(f"e30.{body}.c2ln") == {"iss": "http://sso/realms/divoc"}
    assert claims_of("opaque") == claims_of("a.%.c") == claims_of("a.W10.c") == {}


@pytest.mark.parametrize(
    ("key", "value", "is_name"),
    [
        ("username", "keycloak", True),
        ("db-user", "keycloak", True),
        ("KC_DB_USERNAME", "keycloak", True),
        ("POSTGRES_DATABASE", "registry", True),
        ("dbhost", "db.lab", True),
        ("password", "keycloak", False),
        ("user-password", "keycloak", False),
        ("username", "Tr0ub4dor", False),
        ("hostkey", "abcdef", False),
    ],
)
def test_names_in_a_secret_are_told_from_secrets_by_their_keys(key, value, is_name):
    assert is_a_name(key, value) is is_name
