"""How long a step asks again where nobody answers."""

import pytest

from recovery.errors import BadInput
from recovery.stage import PlainStage, retry_delays_seconds

NAME = "RECOVER_PATIENCE_SECONDS"


def test_a_target_that_is_away_for_a_minute_is_waited_for(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)

    delays = retry_delays_seconds()

    assert delays[0] <= 1
    assert 60 < sum(delays) < 90
    assert PlainStage().retry_delays_seconds == delays


@pytest.mark.parametrize(("patience", "delays"), [("0", ()), ("6", (1, 5)), ("21.5", (1, 5, 15))])
def test_the_patience_can_be_set(monkeypatch, patience, delays):
    monkeypatch.setenv(NAME, patience)

    assert retry_delays_seconds() == delays


@pytest.mark.parametrize("patience", ["", "long", "-1", "inf", "nan"])
def test_a_patience_that_is_no_number_of_seconds_is_named(monkeypatch, patience):
    monkeypatch.setenv(NAME, patience)

    with pytest.raises(BadInput, match=NAME):
        retry_delays_seconds()
