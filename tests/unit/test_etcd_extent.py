"""What hosts that are away count for, some of which may be spares: tables, without any etcd."""

import pytest

from recovery.errors import Refused
from tasks.etcd.evidence import MemberState
from tasks.etcd.extent import extent_of
from tasks.etcd.judging import Cure, judge
from tasks.etcd.terms import Terms
from tests.unit.etcd_seen import AWAY, SILENT, STOPPED, member, of_five, settings, well

NO_UNIT = MemberState.NO_UNIT


@pytest.mark.parametrize(
    ("first", "accept", "why"),
    [
        # h2 and h3 are the majority of three, whatever becomes of the spares h4 and h5.
        (member(1), ("off:h4", "off:h5"), "off:h2 off:h3"),
        # As h1 was begun there were five; which of the four are members by now nobody tells.
        (of_five(1), ("off:h4", "off:h5"), "off:h2 off:h3"),
        # A survivor of a recovery before has but itself in its settings.
        (member(1, settings=settings(1, of=1)), ("off:h4", "off:h5"), "off:h2 off:h3"),
        (member(1), ("off:h2", "off:h4"), "off:h3 off:h5"),
    ],
)
def test_spares_that_are_off_do_not_make_a_majority_that_may_come_back_a_minority(
    first, accept, why
):
    members = [first, *(member(n, AWAY) for n in (2, 3, 4, 5))]

    with pytest.raises(Refused) as refused:
        judge("etcd", members, Terms(accept=accept))

    assert why in str(refused.value)
    assert judge("etcd", members, Terms(accept=("off:h2", *accept, "off:h3"))).cure is Cure.REBUILD


def test_where_a_member_lists_them_all_a_spare_needs_no_word():
    listed = well(1).listed[:2]
    members = [member(1, listed=listed), member(2, AWAY), member(3, AWAY)]

    extent = extent_of(members)

    assert (extent.least, extent.most) == (2, 2)
    assert judge("etcd", members, Terms()).away == ("h2", "h3")


@pytest.mark.parametrize("spare", [AWAY, NO_UNIT])
def test_a_majority_with_its_data_is_started_however_many_spares_are_off(spare):
    members = [member(1, STOPPED), member(2, STOPPED), member(3, AWAY)]
    members += [member(n, spare) for n in (4, 5)]

    for accept in ((), ("off:h4",), ("off:h4", "off:h5")):
        loss = judge("etcd", members, Terms(accept=accept))

        assert (loss.cure, loss.starts) == (Cure.START, ("h1", "h2"))


@pytest.mark.parametrize("state", [SILENT, STOPPED])
def test_a_survivor_of_a_recovery_before_can_be_rebuilt_from_again(state):
    alone = member(1, state, settings=settings(1, of=1))
    members = [alone, member(2, AWAY), member(3, AWAY)]

    assert judge("etcd", members, Terms(accept=("off:h2", "off:h3"))).survivor == "h1"
    with pytest.raises(Refused, match="off:h2 off:h3"):
        judge("etcd", members, Terms())
