"""Running rotate-admin-api-secret: a Keycloak, a namespace, and DIVOC's services that read it."""

from dataclasses import dataclass

import flows.client_secrets  # noqa: F401 (declares the recovery)
from tests.integration.config_runs import Settings, encoded
from tests.lab.keycloak import CLIENT, REALM, LabKeycloak
from tests.lab.keycloak_server import SERVICE

NAME = "rotate-admin-api-secret"
KEY = "ADMIN_API_CLIENT_SECRET"
READERS = ("portal-api", "vaccination-api")
WRONG = "wr0ng-0f-the-lab-17"


@dataclass
class Platform:
    """Keycloak on one side, what the services have on the other."""

    settings: Settings
    keycloak: LabKeycloak
    config: str = "configmap/divoc-config"

    def deploy(self, secret, readers=READERS):
        """Let the services have this secret, in a ConfigMap as the installer puts it."""
        self.settings.config_map(data={KEY: secret, "KEYCLOAK_URL": self.keycloak.url})
        self.settings.secret(**{KEY: secret})
        kind, _, name = self.config.partition("/")
        reference = {"configmap": "configMapRef", "secret": "secretRef"}[kind]
        for reader in readers:
            self.settings.reader(reader, replicas=1, envFrom=[{reference: {"name": name}}])
        self.settings.reader("registry", replicas=1, env=[{"name": "OTHER", "value": "x"}])
        return self

    def run(self, options=None, **parameters):
        given = {"keycloak": self.keycloak.parameter, "config": self.config, **parameters}
        return self.settings.run(NAME, options, **given)

    def undo(self, ended, **parameters):
        given = {"keycloak": self.keycloak.parameter, "config": self.config, **parameters}
        return self.settings.undo(ended, NAME, **given)

    @property
    def service_url(self):
        """A service that wants a token of this Keycloak."""
        return self.keycloak.url.removesuffix(self.keycloak.standin.prefix) + SERVICE

    @property
    def held(self):
        """The secret that Keycloak has."""
        return self.keycloak.standin.client(CLIENT, REALM)["secret"]

    @property
    def in_setting(self):
        """What the services read."""
        kind, _, name = self.config.partition("/")
        return self.settings.value(KEY, name, f"{kind}s")

    def agrees_on(self, secret):
        """Whether both sides have this secret, and a service gets a token with it."""
        wanted = secret if self.config.startswith("configmap") else encoded(secret)
        is_held = self.held == secret and self.in_setting == wanted
        return is_held and self.keycloak.gives_token(secret)

    def marks(self, readers=READERS):
        return {self.settings.mark(name) for name in readers}
