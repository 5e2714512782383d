"""The manifest of a static pod of etcd: the flags it starts etcd with, read and changed.

A change replaces the text of a flag where it stands, and leaves all else as it is: comments, order,
anchors, other containers. What came of it is read again and compared before it is believed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

NAME = "etcd"
DASH = re.compile(" *- +")
ONE_EACH = "Give each flag as an item of its own in command, `- --name=value`, as kubeadm does"


class OddManifestError(ValueError):
    """A manifest that is not understood, or could not be changed; says why."""


@dataclass(frozen=True)
class Word:
    """An item of a command, and whether it stands in a list on one line."""

    node: ScalarNode
    is_in_line: bool

    @property
    def text(self) -> str:
        """As the kubelet reads it."""
        return str(self.node.value)


@dataclass(frozen=True)
class Flag:
    """A flag on the command line of the container.

    Attributes:
        name: without its dashes.
        value: empty where none is given, as for one that is only switched on.
        word: what a change replaces: all of `--name=value`, or the value in an item of its own.
        is_apart: whether it is that.
    """

    name: str
    value: str
    word: "Word"
    is_apart: bool


@dataclass(frozen=True)
class EtcdPod:
    """What a manifest says of the etcd it starts.

    Attributes:
        flags: of its command line, in their order.
        env: what the container's environment says, by name; of what it is told elsewhere, nothing.
        mounts: folders of the host by where the container has them, as far as they are all of it.
    """

    flags: Mapping[str, str]
    env: Mapping[str, str]
    mounts: Mapping[str, str]

    def on_host(self, path: str) -> str:
        """Where a path of the container lies on the host; empty where it does not."""
        inside = PurePosixPath(path)
        near = [at for at in self.mounts if inside.is_relative_to(at)]
        if not near:
            return ""
        longest = max(near, key=len)
        return str(PurePosixPath(self.mounts[longest]) / inside.relative_to(longest))


def pod_name(text: str) -> str:
    """The name of the pod in a file; empty where it holds none, as the kubelet would see it."""
    try:
        return str(yaml.safe_load(text)["metadata"]["name"])
    except (yaml.YAMLError, LookupError, TypeError):
        return ""


def parse_manifest(text: str) -> EtcdPod:
    """Read the manifest of a static pod, as kubeadm writes it for etcd 3.4 to 3.6.

        spec:
          containers:
          - command:
            - etcd
            - --data-dir=/var/lib/etcd
            volumeMounts:
            - mountPath: /var/lib/etcd
              name: etcd-data
          volumes:
          - hostPath: {path: /var/lib/etcd, type: DirectoryOrCreate}
            name: etcd-data

    Raises:
        OddManifestError: it is none, or its command is not one flag an item.
    """
    flags = _flags_of(text)
    loaded = yaml.safe_load(text)
    try:
        container = _container(loaded)
        volumes = {one["name"]: one.get("hostPath") for one in loaded["spec"].get("volumes") or ()}
        env = {one["name"]: str(one.get("value", "")) for one in container.get("env") or ()}
        mounts = {
            str(one["mountPath"]): str(volumes[one["name"]]["path"])
            for one in container.get("volumeMounts") or ()
            if volumes.get(one["name"]) and not {"subPath", "subPathExpr"} & set(one)
        }
    except (LookupError, TypeError, AttributeError) as error:
        raise OddManifestError(f"it is no pod that the kubelet could start: {error!r}") from error
    return EtcdPod(flags, env, mounts)


def changed(text: str, wanted: Mapping[str, str]) -> str:
    """The manifest with these flags of etcd, and with no other change.

    One that is not there yet is put behind the last.

    Raises:
        OddManifestError: it cannot be done in this text without changing something else.
    """
    words = _words(_composed(text))
    flags = _flags(words)
    known, due = {flag.name for flag in flags}, dict(wanted)
    _refuse_shadowed(text, due)
    edits = [
        (
            flag.word.node.start_mark.index,
            flag.word.node.end_mark.index,
            _written(flag, due[flag.name]),
        )
        for flag in flags
        if flag.name in due
    ]
    missing = [f"--{name}={value}" for name, value in due.items() if name not in known]
    if missing:
        edits.append(_added(text, words, missing))
    after = text
    for start, end, new in sorted(edits, reverse=True):
        after = after[:start] + new + after[end:]
    _require_same_but(text, after, due)
    return after


def _refuse_shadowed(text: str, due: Mapping[str, str]) -> None:
    """Raise where the environment says the same: etcd does not start then (3.5)."""
    said = parse_manifest(text).env
    names = [f"ETCD_{name.upper().replace('-', '_')}" for name in due]
    if both := [name for name in names if name in said]:
        raise OddManifestError(f"its environment says {', '.join(both)}, and a flag is to")


def _flags_of(text: str) -> dict[str, str]:
    return {flag.name: flag.value for flag in _flags(_words(_composed(text)))}


def _composed(text: str) -> Node:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise OddManifestError(f"it is no YAML: {' '.join(str(error).split())}") from error
    if node is None:
        raise OddManifestError("it is empty")
    return node


def _container(loaded: Any) -> Any:
    """The container that runs etcd, of a pod as YAML gives it."""
    containers = loaded["spec"]["containers"]
    found = [one for one in containers if one.get("name") == NAME]
    if len(found) != 1:
        raise LookupError(f"{len(found)} of its containers are called {NAME}")
    return found[0]


def _words(root: Node) -> list[Word]:
    """The items of command and args."""
    containers = _child(_child(root, "spec"), "containers")
    if not isinstance(containers, SequenceNode):
        raise OddManifestError("it has no containers")
    named = [one for one in containers.value if _text(_child(one, "name")) == NAME]
    if len(named) != 1:
        raise OddManifestError(f"{len(named)} of its containers are called {NAME}")
    items: list[Word] = []
    for found in (_child(named[0], "command"), _child(named[0], "args")):
        if found is None:
            continue
        if not isinstance(found, SequenceNode):
            raise OddManifestError("the command of etcd is no list of words")
        for item in found.value:
            if not isinstance(item, ScalarNode) or item.style in {"|", ">"}:
                raise OddManifestError("a word of the command of etcd is a block of text")
            items.append(Word(item, bool(found.flow_style)))
    if not items or not _is_etcd(items[0].text):
        first = repr(items[0].text[:60]) if items else "nothing"
        raise OddManifestError(f"its command does not begin with the program etcd but with {first}")
    return items


def _is_etcd(word: str) -> bool:
    """Whether it is the program alone: with flags behind it, it is a line of shell."""
    return word.startswith("-") or PurePosixPath(word).name == NAME


def _child(node: Node | None, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for name, value in node.value if _text(name) == key), None)


def _text(node: Node | None) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else ""


def _flags(words: Sequence[Word]) -> list[Flag]:
    found: list[Flag] = []
    for at, word in enumerate(words):
        if not word.text.startswith("-"):
            continue
        if len(word.text.split()) > 1:
            raise OddManifestError(f"an item of its command is several words: {word.text[:60]!r}")
        name, mark, value = word.text.strip().lstrip("-").partition("=")
        following = words[at + 1] if at + 1 < len(words) else None
        if mark or following is None or following.text.startswith("-"):
            found.append(Flag(name, value, word, is_apart=False))
        else:
            found.append(Flag(name, following.text, following, is_apart=True))
    return found


def _written(flag: Flag, value: str) -> str:
    text = value if flag.is_apart else f"--{flag.name}={value}"
    is_plain = flag.word.node.style is None and not flag.word.is_in_line
    return text if is_plain else json.dumps(text)


def _added(text: str, words: Sequence[Word], flags: Sequence[str]) -> tuple[int, int, str]:
    """What is put behind the last word, and where."""
    at = words[-1].node.end_mark.index
    if words[-1].is_in_line:
        return at, at, "".join(f", {json.dumps(flag)}" for flag in flags)
    end = text.find("\n", at)  # behind a comment, if there is one
    at = len(text) if end < 0 else end
    begins = text.rfind("\n", 0, words[-1].node.start_mark.index) + 1
    dash = DASH.match(text, begins)
    if dash is None:
        raise OddManifestError("its last flag does not stand on a line of its own")
    return at, at, "".join(f"\n{dash[0]}{flag}" for flag in flags)


def _require_same_but(before: str, after: str, due: Mapping[str, str]) -> None:
    """Raise where anything but those flags has become another, as through a shared anchor."""
    try:
        old, new = yaml.safe_load(before), yaml.safe_load(after)
        former, found = _flags_of(before), _flags_of(after)
        for pod in (old, new):
            for key in ("command", "args"):
                _container(pod).pop(key, None)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise OddManifestError(f"its flags could not be changed in its text: {error}") from error
    if old != new or found != {**former, **due}:
        raise OddManifestError(
            "its flags could not be changed without something else, as where an anchor shares them"
        )
