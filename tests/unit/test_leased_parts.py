"""A recovery of several hosts leases each of them too."""

from dataclasses import replace

import pytest

from blocks.kube.cluster import KubernetesCluster
from recovery.errors import Fenced, TargetTaken
from recovery.launch import launch
from recovery.run import Options, Recovery
from recovery.steps import act
from recovery.verdict import Danger
from recovery.walk import current_fence
from tests.unit.engine_lab import NO_DELAY
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)


@act(commands=lambda meanwhile: [], without_probe="nothing to see", redo_in_doubt=True)
def pause(meanwhile) -> None:
    meanwhile()


class Label:
    label = "what happens meanwhile"

    def __init__(self, happen):
        self.happen = happen

    def __call__(self):
        self.happen()


def repair(target, *parts, meanwhile=lambda: None, n=1, **options):
    declared = Recovery(
        name="repair",
        fn=lambda: pause(Label(meanwhile)),
        runbook="",
        answers=(),
        danger=Danger.CHANGE,
        target_of=lambda: target,
        parameters={},
    )
    declared = replace(declared, parts_of=lambda: parts)
    return launch(declared, {}, Options(**options), NO_DELAY, f"00000000-0000-7000-8000-{n:012x}")


@pytest.mark.parametrize("other", [("cp2",), ("staging", "cp2"), ("prod", "cp9")])
def test_who_holds_a_cluster_holds_its_hosts_and_the_other_way_round(lab, other):
    meanwhile = []

    first = repair("prod", "cp1", "cp2", meanwhile=lambda: meanwhile.append(repair(*other, n=2)))
    afterwards = repair(*other, n=3)

    assert (first.state, afterwards.state) == ("recovered", "recovered")
    assert isinstance(meanwhile[0].error, TargetTaken)
    assert lab.events(meanwhile[0].recovery_id or "000000000002") == []


def test_a_recovery_that_was_refused_a_part_holds_nothing(lab):
    ended = []

    def meanwhile():
        ended.append(repair("cp1", n=3, meanwhile=both))

    def both():
        ended.append(repair("prod", "cp1", "cp2", n=4))  # cp1 is taken
        ended.append(repair("cp2", n=5))  # and cp2 was let go of

    meanwhile()

    assert [one.state for one in ended] == ["refused", "recovered", "recovered"]


def test_a_cluster_with_a_name_of_its_own_is_leased_by_its_address_too(lab, tmp_path):
    conf = tmp_path / "conf"
    conf.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
        "clusters: [{name: k, cluster: {server: 'https://lab.example:6443'}}]\nusers: []\n"
    )
    plain = KubernetesCluster.named(f"kubeconfig://{conf}").label
    named = KubernetesCluster.named(f"kubeconfig://{conf}?name=leased-by-both").label
    meanwhile = []

    def other():
        meanwhile.append(repair(f"{plain}/shop/web", n=2))
        meanwhile.append(repair(f"{plain}/shop/web-2", n=3))

    repair(f"{named}/shop/web", meanwhile=other)

    assert isinstance(meanwhile[0].error, TargetTaken)
    assert meanwhile[1].state == "recovered"


def test_a_take_over_takes_no_part_that_another_recovery_is_at_work_on(lab):
    ended = []

    def meanwhile():
        ended.append(repair("prod", "cp1", "cp2", n=2, take_over_by="Ada"))

    other = repair("cp2", meanwhile=meanwhile)

    assert other.state == "recovered"
    assert isinstance(ended[0].error, TargetTaken)
    assert "--take-over" not in str(ended[0].error)


def test_nobody_loses_the_target_to_a_take_over_that_a_part_stands_against(lab):
    ended = []

    def both():
        ended.append(repair("prod", "cp1", meanwhile=take_over, n=2))

    def take_over():
        ended.append(repair("prod", "cp1", "cp2", n=3, take_over_by="Ada"))

    other = repair("cp2", meanwhile=both)

    assert isinstance(ended[0].error, TargetTaken)
    assert "cp2" in str(ended[0].error)
    assert [ended[1].state, other.state] == ["recovered", "recovered"]


def test_a_take_over_takes_the_target_with_its_parts_and_says_from_whom(lab):
    ended = []

    def meanwhile():
        ended.append(repair("prod", "cp1", "cp2", n=2, take_over_by="Ada"))

    with pytest.raises(Fenced):
        repair("prod", "cp1", "cp2", meanwhile=meanwhile)

    assert ended[0].state == "recovered"
    taken = next(one for one in lab.events("000000000002") if one.kind == "taken-over").body
    held = [(one["target"], one["recovery_id"]) for one in taken["from"]]
    assert held == [(name, "000000000001") for name in ("prod", "cp1", "cp2")]


def test_the_fence_at_a_host_has_the_epoch_of_its_own_lease(lab):
    fences = []

    repair("cp2", n=1)
    repair("prod", "cp1", "cp2", n=2, meanwhile=lambda: fences.append(current_fence()))

    assert (fences[0].target, fences[0].epoch) == ("prod", 1)
    assert (fences[0].at("cp2").target, fences[0].at("cp2").epoch) == ("cp2", 2)
    assert fences[0].at("elsewhere") == fences[0]


def test_a_second_process_of_a_run_that_acts_leaves_without_a_word_about_it(lab):
    seen = []

    def start_again():
        with pytest.raises(Fenced, match="another process of this flow run is at work") as left:
            repair("prod")
        seen.append(str(left.value))

    first = repair("prod", meanwhile=start_again)

    assert first.state == "recovered"
    assert len(seen) == 1
    assert seen[0].startswith("has no lease on prod: ")


def test_a_resume_by_another_run_of_what_is_at_work_says_to_wait_for_it(lab):
    ended = []

    def resume():
        ended.append(repair("prod", n=2, resume="000000000001"))

    assert repair("prod", meanwhile=resume).state == "recovered"
    assert isinstance(ended[0].error, TargetTaken)
    assert "a living attempt of this recovery holds it" in str(ended[0].error)
    assert "wait for its end" in str(ended[0].error)
