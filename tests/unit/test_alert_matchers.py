"""Matchers, as Alertmanager reads them."""

import shutil
import subprocess

import pytest
import yaml

from operate.alerts.matchers import read_matcher
from recovery.errors import BadInput

LABELS = {"alertname": "RedisDown", "instance": "10.0.0.5:9121", "odd": 'a"b\\c,d\n{}'}
FIT = [
    'alertname="RedisDown"',
    "alertname=RedisDown",
    ' alertname = "RedisDown" ',
    'alertname!="Other"',
    'alertname=~"Redis.*"',
    'alertname!~"Redis"',  # anchored
    'missing=""',
    'missing!="x"',
    'missing=~".*"',
    'missing=~"|x"',
    'instance=~"10\\\\.0\\\\.0\\\\.[0-9]+:9121"',
    r'odd="a\"b\\c,d\n{}"',
    'odd=~"a.+"',  # a dot is also a new line
]
UNFIT = [
    'alertname="redisdown"',
    'alertname=~"Redis"',
    'alertname!="RedisDown"',
    'alertname!~"Redis.*"',
    'missing!=""',
    'missing=~".+"',
    'alertname=~""',
]


@pytest.mark.parametrize("text", FIT)
def test_a_matcher_fits(text):
    assert read_matcher(text, "match").fits(LABELS)


@pytest.mark.parametrize("text", UNFIT)
def test_a_matcher_does_not_fit(text):
    assert not read_matcher(text, "match").fits(LABELS)


@pytest.mark.parametrize("text", [text for text in [*FIT, *UNFIT] if "odd" not in text])
def test_alertmanager_reads_it_the_same_way(text, tmp_path):
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("amtool is not installed")
    routes = {
        "receiver": "no",
        "routes": [{"matchers": [text], "receiver": "yes"}],
    }
    file = tmp_path / "alertmanager.yml"
    receivers = [{"name": "no"}, {"name": "yes"}]
    file.write_text(yaml.safe_dump({"route": routes, "receivers": receivers}))
    labels = [f"{name}={value}" for name, value in LABELS.items() if name != "odd"]

    said = subprocess.run(
        [amtool, "config", "routes", "test", f"--config.file={file}", *labels],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert (said == "yes") is read_matcher(text, "match").fits(LABELS)


@pytest.mark.parametrize(
    "text",
    ["", "alertname", "=x", 'a=="x"', 'a="x', "a=~(", 'a=~"(?=x)"', 'a=x"y', "a b=c", "{a=b}"],
)
def test_what_is_no_matcher_is_refused_with_the_form(text):
    with pytest.raises(BadInput) as refused:
        read_matcher(text, "routes.yaml:3: routes[0].match[0]")

    assert refused.value.field.startswith("routes.yaml:3")
    assert refused.value.remedy.startswith("Write")


def test_no_label_can_stretch_the_time_of_a_pattern():
    matcher = read_matcher('a=~"(x+x+)+y"', "match")

    assert not matcher.fits({"a": "x" * 4096})  # the ceiling of a test would end a slow one
