"""What the form of a recovery shows, and what becomes of a block that was picked in it."""

from typing import Annotated

import pytest
from prefect.blocks.core import Block

from operate.catalogue import recoveries
from recovery.declare import OPTION_HELP, OPTION_NAMES, OPTION_TITLES
from recovery.errors import BadInput
from recovery.forms import Saved, name_of_picked, plain_type, title_of
from tests.unit.test_recoveries import ON_CLUSTERS, RECOVERIES, flow_of

each = pytest.mark.parametrize("name", sorted(RECOVERIES))


class Lamp(Block):
    """A block of nobody."""


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("within_seconds", "Time limit (seconds)"),
        ("old", "Old host"),
        ("step_back_max_seconds", "Step back at most (seconds)"),
        ("tls_ca_file", "TLS CA file"),
        ("days_left_min", "Days left at least"),
        ("grafana_url", "Grafana URL"),
        ("host", "Host"),
    ],
)
def test_a_title_is_the_name_in_words_with_its_unit_behind(name, title):
    assert title_of(name) == title


@each
def test_every_field_of_a_form_has_a_title_a_description_and_a_place(name):
    form = flow_of(name).parameters

    fields = form.properties
    own = list(RECOVERIES[name].parameters)

    assert list(fields) == [*own, *OPTION_NAMES]
    assert [field["position"] for field in fields.values()] == list(range(len(fields)))
    assert all(field["title"] != key or key == key.title() for key, field in fields.items())
    assert all(field["description"].strip() for field in fields.values())
    assert set(form.required) <= set(own)


@pytest.mark.parametrize("name", ON_CLUSTERS)
def test_a_cluster_can_be_typed_or_picked_and_reaches_the_recovery_as_text(name):
    fields = flow_of(name).parameters.properties
    assert {"$ref": "#/definitions/KubernetesCluster"} in fields["cluster"]["anyOf"]
    assert {"type": "string"} in fields["cluster"]["anyOf"]
    assert RECOVERIES[name].parameters["cluster"][0] is str


def test_every_option_has_a_title_and_a_description():
    assert set(OPTION_TITLES) == set(OPTION_HELP) == set(OPTION_NAMES)
    assert recoveries()


def test_a_block_that_was_picked_is_its_name_and_an_unsaved_one_is_refused():
    picked = Lamp()
    picked._block_document_name = "lab"

    assert name_of_picked("cluster", picked) == "lab"
    assert name_of_picked("cluster", "prod") == "prod"
    assert plain_type(Annotated[str, Saved(Lamp)]) is str
    with pytest.raises(BadInput, match="cluster: this block is not saved"):
        name_of_picked("cluster", Lamp())
