"""What is true of two settings of DIVOC before they are changed."""

from blocks.kube.path import path_of
from recovery.errors import Refused
from recovery.steps import probe
from tasks.settings.contents import standing
from tasks.settings.order import Accepted, ConfigOrder, ObjectKind

LIMIT_KEY = "CERTIFICATE_UPDATE_LIMIT"
LIMIT_CONSUMER = "vaccination-api"
LIMIT_DEFAULT = 100  # in the code of vaccination-api, where the key is missing
SMS_KEY = "SMS_AUTH_KEY"
SMS_CONSUMER = "notification-service"
SMS_SWITCH = "ENABLE_SMS"  # missing means off


@probe
def refuse_unless_raised(order: ConfigOrder) -> None:
    """Refuse a limit that is not above the one of now; the same one is already so.

    Raises:
        Refused: it is lower, or the one of now is no whole number.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/config-value.md, "The certificate update limit", step 1.
    """
    with order.cluster.session() as session:
        read = session.find(order.path)
    now = standing(order, read or {})
    if now is not None and not (isinstance(now, str) and now.isdigit()):
        reason = f"{LIMIT_KEY} is {now!r} now, which is no whole number"
        raise Refused(order.label, reason, "Correct it by set-config-value with accept=other-type")
    limit = LIMIT_DEFAULT if now is None else int(now)
    if int(order.source.value) < limit:
        raise Refused(
            order.label,
            f"the limit is {limit} now, and {order.source.value} would lower it",
            "Give a higher one; a lower one is set by set-config-value",
        )


@probe
def refuse_if_sms_is_off(order: ConfigOrder) -> None:
    """Refuse to blame the key where no SMS is sent at all.

    The switch may be in the ConfigMap that the consumer reads besides the object of the key.

    Raises:
        Refused: ENABLE_SMS is not true in any of them.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/config-value.md, "The SMS key", step 1.
    """
    if Accepted.SMS_IS_OFF in order.accept:
        return
    path = path_of("v1", "configmaps", namespace=order.namespace)
    with order.cluster.session() as session:
        maps = session.objects(path)
        own = session.find(order.path) if order.kind is ObjectKind.SECRET else None
    switches = {
        one["metadata"]["name"]: str((one.get("data") or {})[SMS_SWITCH])
        for one in maps
        if SMS_SWITCH in (one.get("data") or {})
    }
    is_in_secret = SMS_SWITCH in ((own or {}).get("data") or {})
    if is_in_secret or any(value.lower() == "true" for value in switches.values()):
        return
    seen = ", ".join(f"{value!r} in configmap/{name}" for name, value in switches.items())
    raise Refused(
        order.label,
        f"no SMS is sent at all: {SMS_SWITCH} is {seen or 'not set, which means off'}",
        f"Set {SMS_SWITCH} to true by set-config-value first; accept={Accepted.SMS_IS_OFF} rotates "
        "the key all the same",
    )
