"""What the pods of a CronJob need before they can start: looked for before anything is stopped."""

from collections.abc import Iterator, Mapping
from typing import Any

from blocks.kube.answer import ClusterForbidden
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from tasks.jobs.template import containers_of_template, pod_spec_of

SECRET, CONFIG_MAP, CLAIM, ACCOUNT = (
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "serviceaccounts",
)
SHOWN = {SECRET: "Secret", CONFIG_MAP: "ConfigMap", CLAIM: "PersistentVolumeClaim"}


def needs_of(cronjob: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Resource and name of each object its pods cannot start without."""
    spec = pod_spec_of(cronjob)
    found = [*_of_volumes(spec)]
    for container in containers_of_template(cronjob):
        found += _of_container(container)
    account = spec.get("serviceAccountName")
    if account and account != "default":
        found.append((ACCOUNT, account))
    return sorted(set(found))


def missing_and_unseen(
    session: KubernetesSession, namespace: str, cronjob: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Which of its needs are not there, and which the account may not look for."""
    missing, unseen = [], []
    for resource, name in needs_of(cronjob):
        shown = f"{SHOWN.get(resource, 'ServiceAccount')} {name}"
        try:
            if session.find(path_of("v1", resource, name, namespace=namespace)) is None:
                missing.append(shown)
        except ClusterForbidden:
            unseen.append(shown)
    return missing, unseen


def _of_volumes(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes") or []:
        if claim := volume.get("persistentVolumeClaim"):
            yield CLAIM, claim["claimName"]
        projected = (volume.get("projected") or {}).get("sources") or []
        for source in (volume, *projected):
            secret, config = source.get("secret") or {}, source.get("configMap") or {}
            secret_name = secret.get("secretName") or secret.get("name")
            if secret_name and not secret.get("optional"):
                yield SECRET, secret_name
            if config.get("name") and not config.get("optional"):
                yield CONFIG_MAP, config["name"]


def _of_container(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one in container.get("env") or []:
        origin = one.get("valueFrom") or {}
        yield from _referenced(origin, "secretKeyRef", "configMapKeyRef")
    for one in container.get("envFrom") or []:
        yield from _referenced(one, "secretRef", "configMapRef")


def _referenced(origin: Mapping[str, Any], secret: str, config: str) -> Iterator[tuple[str, str]]:
    for field, resource in ((secret, SECRET), (config, CONFIG_MAP)):
        meant = origin.get(field) or {}
        if meant.get("name") and not meant.get("optional"):
            yield resource, meant["name"]
