"""Change one key of a ConfigMap or Secret, and restart those who read it, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass

from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from recovery.errors import BadInput
from tasks.settings import changing, divoc, finding, keeping, rollout
from tasks.settings.consumers import Consumer
from tasks.settings.finding import ConfigFound
from tasks.settings.order import ConfigOrder, ValueSource, Wishes, config_order, config_target
from tasks.settings.rollout import Restarts

DIVOC_CONFIG = "configmap/divoc-config"


@dataclass(frozen=True)
class ConfigChanged:
    """What was found, what was done, and what now holds.

    Attributes:
        found: how the setting stood.
        done: nothing, or what was set and restarted.
        holds: what each consumer sees now.
        told: who else reads or owns it.
        kept: the Secret that holds the values of before and after, where they are secret.
        left_to_person: whom to restart, where the recovery was told not to.
    """

    found: str
    done: str
    holds: list[str]
    told: list[str]
    kept: str
    left_to_person: list[str]


@recovery(runbook="docs/runbooks/config-value.md", target=config_target)
def set_config_value(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    config: str,
    key: str,
    value: str = "",
    namespace: str = "",
    value_file: str = "",
    value_env: str = "",
    value_type: str = "",
    add: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    restart: bool = True,  # noqa: FBT001, FBT002 (a field of the form)
    consumers: list[str] | None = None,
    accept: list[str] | None = None,
    within_seconds: int = 600,
) -> ConfigChanged:
    """Set one key of a ConfigMap or Secret, and restart the workloads that read it.

    Each is waited for until it is really out; where one fails, the former value is put back.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        config: configmap/NAME or secret/NAME.
        key: Which key of it.
        value: The new value, in the open; never for Secrets.
        namespace: Empty: the one of the block or the context.
        value_file: File of mode 0600 on the worker that holds a secret value.
        value_env: Environment variable of the worker that holds one.
        value_type: number, boolean, url, json or text; empty: as the old value looks.
        add: Add the key where it is missing.
        restart: Restart those who read it; without, they keep what they have read.
        consumers: Restart these alone, in this order, as vaccination-api; empty: all.
        accept: Names of what is refused otherwise, as helm or other-type.
        within_seconds: How long the pods of each may take to come up.

    Runbook: docs/runbooks/config-value.md, steps 1 to 8.
    """
    source = ValueSource(value, value_file, value_env)
    wishes = Wishes(value_type, add, restart, consumers or (), accept or (), within_seconds)
    return change_value(config_order((cluster, namespace, config), key, source, wishes))


@recovery(runbook="docs/runbooks/config-value.md", target=config_target)
def raise_certificate_update_limit(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    limit: int,
    namespace: str = "",
    config: str = DIVOC_CONFIG,
    consumers: list[str] | None = None,
    accept: list[str] | None = None,
    within_seconds: int = 600,
) -> ConfigChanged:
    """Raise how many times a certificate of DIVOC may be updated, and restart who counts that.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        limit: The new limit, above that of now (100, where the key is missing).
        namespace: Empty: the one of the block or the context.
        config: What holds the key CERTIFICATE_UPDATE_LIMIT.
        consumers: Who is restarted; empty: vaccination-api, which alone uses the limit.
        accept: Names of what is refused otherwise, as helm.
        within_seconds: How long its pods may take to come up.

    Runbook: docs/runbooks/config-value.md, "The certificate update limit".
    """
    if limit < 1:
        raise BadInput("limit", f"{limit}", "Give a whole number above the limit of now")
    wishes = Wishes(
        value_type="number",
        is_added=True,
        consumers=consumers or [divoc.LIMIT_CONSUMER],
        accept=accept or (),
        within_seconds=within_seconds,
    )
    source = ValueSource(str(limit))
    order = config_order((cluster, namespace, config), divoc.LIMIT_KEY, source, wishes)
    divoc.refuse_unless_raised(order)
    return change_value(order)


@recovery(runbook="docs/runbooks/config-value.md", target=config_target)
def rotate_sms_key(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    key_file: str,
    namespace: str = "",
    config: str = DIVOC_CONFIG,
    consumers: list[str] | None = None,
    accept: list[str] | None = None,
    within_seconds: int = 600,
) -> ConfigChanged:
    """Give DIVOC a new key of the SMS provider, and restart who sends the messages.

    The old key is to be revoked at the provider only when a message was sent with the new one.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        key_file: File of mode 0600 on the worker that holds the new key.
        namespace: Empty: the one of the block or the context.
        config: What holds the key SMS_AUTH_KEY, as secret/divoc-secrets in older manifests.
        consumers: Who is restarted; empty: notification-service.
        accept: Names of what is refused otherwise, as sms-is-off.
        within_seconds: How long its pods may take to come up.

    Runbook: docs/runbooks/config-value.md, "The SMS key".
    """
    wishes = Wishes(
        consumers=consumers or [divoc.SMS_CONSUMER],
        accept=accept or (),
        within_seconds=within_seconds,
    )
    source = ValueSource(file=key_file)
    order = config_order((cluster, namespace, config), divoc.SMS_KEY, source, wishes)
    divoc.refuse_if_sms_is_off(order)
    return change_value(order)


def change_value(order: ConfigOrder) -> ConfigChanged:
    """Look, refuse, keep, set, restart, verify: the same for every key."""
    found = finding.config_found(order)
    if found.is_so:
        return ConfigChanged(found.seen, "nothing", [found.seen], found.told, "", found.left)
    kept = keeping.keep_values(order) if order.is_secret and not found.is_equal else ""
    changing.set_value(order, found, kept)
    late = restart_consumers(order, found, kept)
    holds = rollout.is_seen(order, found, kept, late)
    restarted = ", ".join(map(str, found.consumers)) or "none"
    done = f"set; restarted: {restarted}"
    return ConfigChanged(found.seen, done, holds, found.told, kept, found.left)


def restart_consumers(
    order: ConfigOrder,
    found: ConfigFound,
    kept: str,
    go_back_first: Callable[[bool], None] = lambda _is_due: None,
) -> list[str]:
    """Restart the consumers one after the other; return why not all, where one did not come up.

    Args:
        order: which value.
        found: how it stood, and who is restarted.
        kept: the Secret that holds the values, where they are secret.
        go_back_first: what goes back before the value does, told whether that is due.
    """
    restarts = _restarted(order, found)
    is_due = restarts.are_taken_back(found)
    if found.consumers and not found.is_equal:  # also where not due: a plan is to show it
        go_back_first(is_due)
        changing.put_value_back(order, found, kept, is_due=is_due)
        for one in found.consumers:
            rollout.restart_back(order, one, is_due=is_due, is_late=one == restarts.late)
            if is_due and one in restarts.restarted:
                rollout.is_back(order, one)
    return restarts.told(found)


def _restarted(order: ConfigOrder, found: ConfigFound) -> Restarts:
    """Restart one after the other, up to the first that does not come up."""
    restarted: list[Consumer] = []
    for consumer in found.consumers:
        rollout.captured(order, consumer)
        rollout.restart_consumer(order, consumer)
        restarted.append(consumer)
        went = rollout.consumer_went(order, consumer)
        if rollout.is_late(went):
            rollout.captured(order, consumer)
            return Restarts(restarted, consumer, went)
    return Restarts(restarted, None, None)
