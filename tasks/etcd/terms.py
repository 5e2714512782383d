"""What a person has said about a recovery of etcd."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What a person has said about it.

    Attributes:
        survivor: host whose data is to be used; empty: that which would be elected.
        lost: hosts whose members are given up though something is left of them.
        accept: names of what is accepted, as refusals print them.
        snapshot: a file is used instead of a member's data.
    """

    survivor: str = ""
    lost: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    snapshot: str = ""
