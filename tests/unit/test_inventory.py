"""Several hosts under one name: from a URL, a file, or a saved block."""

import pytest

from blocks.inventory import HostInventory, host_named, hosts_named
from recovery.errors import BadInput

PIN = "host_key=SHA256:" + "a" * 42 + "%2B"


def labels(inventory):
    return [host.label for host in inventory.hosts]


def test_urls_separated_by_blanks_or_commas_are_hosts_in_their_order():
    inventory = hosts_named(f"ssh://root@cp2?{PIN},\n ssh://ops@cp1:2222  ssh://root@cp3")

    assert labels(inventory) == ["root@cp2", "ops@cp1:2222", "root@cp3"]
    assert inventory.label == "cp1:2222,cp2,cp3"


def test_the_label_is_the_same_whoever_logs_in():
    assert hosts_named("ssh://root@cp1").label == hosts_named("ssh://ops@cp1").label == "cp1"


def test_what_names_no_host_is_refused_with_what_would():
    with pytest.raises(BadInput) as refused:
        hosts_named("foo")

    remedy = "Give the path of an inventory file on the worker or ssh://"
    assert refused.value.remedy.startswith(remedy)


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "hosts.yaml").write_text(text)
        return str(tmp_path / "hosts.yaml")

    return write


def test_a_file_names_the_hosts_together(written):
    inventory = hosts_named(
        written("label: prod\nhosts:\n  - ssh://root@cp1\n  - ssh://root@cp2\n")
    )

    assert (inventory.label, labels(inventory)) == ("prod", ["root@cp1", "root@cp2"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hosts: [ssh://root@a]", "fields label and hosts"),
        ("label: prod\nhosts: []", "no host"),
        ("label: prod\nhosts: ssh://root@a", "no list"),
        ("label: [prod]\nhosts: [ssh://root@a]", "no text"),
        ("label: a b\nhosts: [ssh://root@a]", "no label"),
        ("label: prod\nhosts: [ssh://root@a, ssh://ops@a]", "a is given twice"),
        ("label: prod\nhosts: [ssh://root:pw@a]", "password"),
        ("label: prod\nhosts: [http://a]", "no ssh URL"),
        ("{", "no YAML"),
        ("[]", "fields label and hosts"),
    ],
)
def test_a_file_that_names_no_hosts_is_bad_input(written, text, named):
    with pytest.raises(BadInput, match=named) as refused:
        hosts_named(written(text), "hosts")

    assert refused.value.field.startswith("hosts")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("", "empty means none"),
        ("   ", "empty means none"),
        ("/nowhere/hosts.yaml", "cannot be read"),
        ("hosts.yaml", "relative path"),
        ("prod", "PREFECT_API_URL"),
        ("ssh://root@a ssh://a", "a is given twice"),
        ("ssh://root@a ssh://", "no ssh URL"),
    ],
)
def test_a_parameter_that_names_no_hosts_is_bad_input(given, named):
    with pytest.raises(BadInput, match=named):
        hosts_named(given)


def test_one_host_is_named_in_the_same_ways_and_two_are_bad_input():
    assert host_named("ssh://root@cp1").label == "root@cp1"
    with pytest.raises(BadInput, match="names 2 hosts"):
        host_named("ssh://root@cp1 ssh://root@cp2")


def test_labels_are_turned_into_hosts_again_in_the_order_of_the_inventory():
    inventory = hosts_named("ssh://root@a ssh://root@b ssh://root@c")

    assert [host.label for host in inventory.named(["root@c", "root@a"])] == ["root@a", "root@c"]
    with pytest.raises(BadInput, match="has no 'root@d'"):
        inventory.named(["root@d"])


def test_a_block_is_an_inventory_under_its_label():
    block = HostInventory(label="prod", hosts=["ssh://root@a", "ssh://root@b"])

    assert block.inventory().label == "prod"
    assert labels(block.inventory()) == ["root@a", "root@b"]
