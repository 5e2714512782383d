"""The client of Keycloak against the stand-in of either generation, and a real one where named."""

import os
import pickle

import pytest

from blocks.keycloak.answer import (
    KeycloakHttpsRequired,
    KeycloakLoginRefused,
    KeycloakNotFound,
    KeycloakPermissionMissing,
    TokenOutcome,
)
from blocks.keycloak.api import KeycloakApi
from blocks.keycloak.roles import users_with
from recovery.errors import AnswerLost, BadInput, Unreachable
from recovery.secrecy.secret import Secret, isolated_registry
from tests.lab.keycloak import CLIENT, REAL_ONE, lab_keycloak, real_keycloak
from tests.lab.keycloak_server import WITH_PREFIX, WITHOUT_PREFIX
from tests.lab.ports import LOOPBACK, free_port

REALM = "recover-contract"
NEW = "new-0f-the-lab-4242"
GENERATIONS = {"up-to-16": WITH_PREFIX, "from-17": WITHOUT_PREFIX}
if REAL_ONE in os.environ:
    GENERATIONS["real"] = ""


@pytest.fixture(autouse=True)
def registry():
    with isolated_registry():
        yield


@pytest.fixture(params=GENERATIONS)
def lab(request, tmp_path):
    """A Keycloak with a realm and a client of this test's own."""
    if request.param == "real":
        real = real_keycloak()
        real.make(REALM)
        yield real
        real.remove(REALM)
        real.close()
        return
    prefix = GENERATIONS[request.param]
    with lab_keycloak(tmp_path / "keycloak", prefix) as standin:
        standin.make(REALM)
        yield standin


@pytest.fixture
def standin(lab):
    """For faults, which only a stand-in shows on order."""
    if lab.standin is None:
        pytest.skip("a real one shows no fault on order")
    return lab


def session_of(lab, **fields):
    block = KeycloakApi.from_url(lab.parameter)
    return block.model_copy(update={"within_seconds": 5, **fields}).session()


def test_a_client_is_found_by_its_name(lab):
    with session_of(lab) as session:
        found = session.client_named(REALM, CLIENT)
        missing = session.client_named(REALM, "no-such-client")

    assert missing is None
    assert found.uuid == lab.client(REALM)["id"]
    assert found.is_enabled
    assert found.has_service_account
    assert not found.is_public
    assert found.authenticator == "client-secret"


def test_the_secret_is_read_and_gives_a_token(lab):
    with session_of(lab) as session:
        secret = session.secret_of(REALM, session.client_named(REALM, CLIENT).uuid)
        given = session.token_with(REALM, CLIENT, secret)
        refused = session.token_with(REALM, CLIENT, Secret("wrong-0f-the-lab"))
        bearer = session.bearer(REALM, CLIENT, secret)

    assert secret.reveal() == lab.secret(REALM)
    assert given.is_given
    assert "good for" in given.told
    assert refused.outcome is TokenOutcome.SECRET_REFUSED
    assert refused.told.startswith(("400", "401"))
    assert bearer.reveal().count(".") == 2


def test_a_secret_is_set_and_all_else_of_the_client_stays(lab):
    before = lab.client(REALM)

    with session_of(lab) as session:
        session.set_secret(REALM, before["id"], Secret(NEW))
        session.set_secret(REALM, before["id"], Secret(NEW))  # done twice, it is the same

    after = lab.client(REALM)
    assert lab.secret(REALM) == NEW
    assert lab.gives_token(NEW, REALM)
    assert not lab.gives_token(before["secret"], REALM)
    assert after["serviceAccountsEnabled"]
    assert after["attributes"]["lab.owner"] == "divoc"


def test_the_address_is_right_with_and_without_its_prefix(lab):
    other = lab.url.removesuffix("/auth") if lab.url.endswith("/auth") else f"{lab.url}/auth"

    with session_of(lab, url=other) as session:
        found = session.client_named(REALM, CLIENT)

    assert found is not None


def test_a_wrong_password_is_named_and_told_nowhere(lab, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("wr0ng-0f-the-lab")
    wrong.chmod(0o600)

    with session_of(lab, password_file=wrong) as session, pytest.raises(KeycloakLoginRefused) as no:
        session.client_named(REALM, CLIENT)

    assert no.value.code == 401
    assert "log in as" in str(no.value)
    assert "wr0ng" not in str(no.value)
    assert str(pickle.loads(pickle.dumps(no.value))) == str(no.value)  # noqa: S301 - our own


def test_a_realm_that_is_not_there_is_named(lab):
    with session_of(lab) as session:
        with pytest.raises(KeycloakNotFound, match="Check the realm"):
            session.client_named("no-such-realm", CLIENT)
        with pytest.raises(KeycloakNotFound, match="Check the realm"):
            session.token_with("no-such-realm", CLIENT, Secret("any-0f-the-lab"))


def test_an_account_that_may_not_manage_clients_is_told_which_role_it_lacks(standin):
    standin.standin.may_manage = False

    with session_of(standin) as session:
        found = session.client_named(REALM, CLIENT)
        with pytest.raises(KeycloakPermissionMissing, match="manage-clients"):
            session.secret_of(REALM, found.uuid)


def test_a_realm_that_wants_https_is_no_wrong_password(standin):
    standin.standin.wants_https = True

    with session_of(standin) as session, pytest.raises(KeycloakHttpsRequired, match="sslRequired"):
        session.client_named(REALM, CLIENT)


def test_an_answer_that_is_lost_may_have_taken_effect(standin):
    standin.standin.loses_answers = True
    key = standin.client(REALM)["id"]

    with session_of(standin) as session, pytest.raises(AnswerLost):
        session.set_secret(REALM, key, Secret(NEW))

    assert standin.secret(REALM) == NEW


def test_one_that_is_away_or_behind_a_dead_gateway_is_unreachable(standin):
    standin.standin.is_away = True
    with session_of(standin) as session, pytest.raises(Unreachable, match="503"):
        session.client_named(REALM, CLIENT)

    nobody = f"http://{LOOPBACK}:{free_port()}"
    with session_of(standin, url=nobody) as session, pytest.raises(Unreachable):
        session.client_named(REALM, CLIENT)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://admin:pw@sso.lab?password_file=/p", "there is one in the URL"),
        ("https://admin@sso.lab", "belong together"),
        ("https://sso.lab?client=recover", "a user with a password, or a client"),
        ("https://admin@sso.lab?password_file=keys/sso", "not an absolute path"),
        ("https://admin@sso.lab?password_file=/p&password_env=P", "not both"),
        ("https://admin@sso.lab?pasword_file=/p", "not known"),
        ("ftp://admin@sso.lab?password_file=/p", "no http or https"),
        ("sso.lab", "neither"),
    ],
)
def test_an_address_that_is_malformed_is_told(url, told):
    with pytest.raises(BadInput, match=told):
        KeycloakApi.named(url)


def test_an_authority_that_cannot_be_read_is_told(standin, tmp_path):
    with pytest.raises(BadInput, match="holds the authority"):
        session_of(standin, ca_file=tmp_path / "no-such.pem")


def test_users_have_a_role_by_themselves_by_a_group_or_by_one_above(standin):
    server = standin.standin
    server.role_users[REALM, "admin"] = ["ana"]
    server.role_groups[REALM, "admin"] = ["above"]
    server.group_members.update(above=["bo"], below=["cy"], other=["di"])
    server.groups_below["above"] = ["below"]

    with session_of(standin) as session:
        assert users_with(session, REALM, "admin") == ["ana", "bo", "cy"]


def test_users_have_a_role_by_a_composite_role_of_the_realm_or_of_a_client(standin):
    server, of_client = standin.standin, f"{standin.client(REALM)['id']}/manager"
    given = {"admin": [], "operator": ["ana"], of_client: ["bo"], "reader": ["cy"], "other": ["di"]}
    server.role_users.update({(REALM, role): users for role, users in given.items()})
    server.role_groups[REALM, "operator"] = ["team"]
    server.group_members["team"] = ["eli"]
    server.role_holds[REALM, "operator"] = ["admin", "reader"]
    server.role_holds[REALM, of_client] = ["operator"]
    server.role_holds[REALM, "other"] = ["reader"]

    with session_of(standin) as session:
        assert users_with(session, REALM, "admin") == ["ana", "bo", "eli"]
        assert users_with(session, REALM, "reader") == ["ana", "bo", "cy", "di", "eli"]
        assert users_with(session, REALM, "other") == ["di"]


def test_a_role_or_realm_that_is_missing_is_not_one_that_nobody_has(standin):
    with session_of(standin) as session:
        assert session.has_realm(REALM)
        assert not session.has_realm("no-such-realm")
        for realm, role in ((REALM, "no-such-role"), ("no-such-realm", "admin")):
            with pytest.raises(KeycloakNotFound):
                users_with(session, realm, role)
