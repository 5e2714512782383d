"""What is true of every recovery: its runbook, its deployment, its line in the README."""

import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from prefect import Flow

from operate.catalogue import recoveries
from recovery.left_to_person import LEFT_TO_PERSON
from recovery.verdict import Danger

PROJECT = Path(__file__).resolve().parent.parent.parent
SECTIONS = [
    "Meaning", "Impact", "Diagnosis", "Do not", "Steps", "Way back", "How we know it worked",
]  # fmt: skip
DEPLOYMENTS = {
    entry["name"]: entry
    for entry in yaml.safe_load((PROJECT / "deployments/prefect.yaml").read_text())["deployments"]
}
RECOVERIES = {
    name: recovery
    for name, recovery in recoveries().items()
    if recovery.fn.__module__.startswith("flows.")  # and not a toy of another test
}
each = pytest.mark.parametrize("name", sorted(RECOVERIES))


def flow_of(name):
    """The flow that the deployment of this name leads to."""
    module, _, function = DEPLOYMENTS[name]["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), function)


def test_every_deployment_is_that_of_a_recovery():
    assert set(DEPLOYMENTS) == set(RECOVERIES)


@each
def test_a_deployment_leads_to_its_recovery_and_says_how_dangerous_it_is(name):
    deployment = DEPLOYMENTS[name]

    flow = flow_of(name)

    assert isinstance(flow, Flow)
    assert flow.name == name
    assert str(RECOVERIES[name].danger) in deployment["tags"]
    assert RECOVERIES[name].runbook in deployment["description"]


RESUMES_ITSELF = sorted(name for name, one in RECOVERIES.items() if one.resumes_itself)


@pytest.mark.parametrize("name", RESUMES_ITSELF)
def test_one_that_resumes_itself_destroys_nothing_and_its_runbook_says_so(name):
    declared = RECOVERIES[name]

    assert declared.danger is not Danger.DESTRUCTIVE
    assert len(declared.resumes_itself.split()) > 5
    assert f"`{name}` resumes by itself" in (PROJECT / declared.runbook).read_text()


@each
def test_a_runbook_has_its_sections_in_their_order(name):
    text = (PROJECT / RECOVERIES[name].runbook).read_text()

    found = re.findall(r"^## (.+)$", text, re.MULTILINE)

    assert [title for title in found if title in SECTIONS] == SECTIONS


@each
def test_the_readme_says_what_it_changes_when_it_refuses_and_the_way_back(name):
    rows = [
        row
        for row in (PROJECT / "README.md").read_text().splitlines()
        if row.startswith("| ") and f"`{name}`" in row.split("|")[1]
    ]

    assert len(rows) == 1
    assert RECOVERIES[name].runbook in rows[0]
    assert all(cell.strip() for cell in rows[0].strip("|").split("|"))
    assert all(alert in rows[0] for alert in RECOVERIES[name].answers)


@each
def test_every_parameter_is_explained(name):
    told = inspect.getdoc(RECOVERIES[name].fn).partition("Args:\n")[2].partition("\n\n")[0]

    assert re.findall(r"^ {4}(\w+):", told, re.MULTILINE) == list(RECOVERIES[name].parameters)


@each
def test_what_a_recovery_leaves_to_a_person_is_a_list_of_orders(name):
    result = inspect.signature(RECOVERIES[name].fn).return_annotation

    kept = {field.name: field.type for field in fields(result)} if is_dataclass(result) else {}

    assert kept.get(LEFT_TO_PERSON, list[str]) == list[str]


ON_CLUSTERS = sorted(name for name, one in RECOVERIES.items() if "cluster" in one.parameters)


@pytest.mark.parametrize("name", ON_CLUSTERS)
def test_a_recovery_of_a_cluster_has_a_role_that_names_every_verb_and_resource(name):
    objects = list(
        yaml.safe_load_all((PROJECT / f"deployments/kubernetes/{name}.yaml").read_text())
    )

    rules = [rule for one in objects for rule in one.get("rules", ())]
    assert {one["kind"] for one in objects} >= {"Role", "RoleBinding"}
    assert rules
    assert "*" not in {word for rule in rules for words in rule.values() for word in words}


def test_every_role_is_that_of_a_recovery_of_a_cluster():
    files = (PROJECT / "deployments/kubernetes").glob("*.yaml")

    assert sorted(file.stem for file in files) == ON_CLUSTERS
