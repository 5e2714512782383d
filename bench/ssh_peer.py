"""The same commands by a peer, run in the peers' environment: `python ssh_peer.py PEER SPEC`.

SPEC is a JSON file: hosts (addresses), port, user, key, known_hosts, commands. Prints the seconds
from the first connection to the last answer, and how many answers were right; imports are not
counted, except for the programs that are nothing but a whole process (ansible, pyinfra).
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AT_ONCE = 50


def by_asyncssh(spec):
    import asyncssh  # noqa: PLC0415

    async def on(host):
        async with asyncssh.connect(
            host,
            port=spec["port"],
            username=spec["user"],
            client_keys=[spec["key"]],
            known_hosts=spec["known_hosts"],
            config=None,
            agent_path=None,
        ) as connection:
            return [(await connection.run(command)).stdout for command in spec["commands"]]

    async def everywhere():
        return await asyncio.gather(*(on(host) for host in spec["hosts"]))

    started = time.monotonic()
    answers = asyncio.run(everywhere())
    return time.monotonic() - started, sum(map(len, answers))


def by_fabric(spec):
    from fabric import Config, Connection, ThreadingGroup  # noqa: PLC0415

    config = Config(overrides={"load_ssh_configs": False})
    connections = [
        Connection(
            host,
            port=spec["port"],
            user=spec["user"],
            config=config,
            connect_kwargs={"key_filename": spec["key"], "allow_agent": False},
        )
        for host in spec["hosts"]
    ]
    started = time.monotonic()
    group = ThreadingGroup.from_connections(connections)
    count = sum(len(group.run(command, hide=True)) for command in spec["commands"])
    group.close()
    return time.monotonic() - started, count


def by_parallel_ssh(spec):
    from pssh.clients import ParallelSSHClient  # noqa: PLC0415

    started = time.monotonic()
    client = ParallelSSHClient(
        spec["hosts"], user=spec["user"], port=spec["port"], pkey=spec["key"], pool_size=AT_ONCE
    )
    count = 0
    for command in spec["commands"]:
        for answer in client.run_command(command):
            count += bool(list(answer.stdout))
    return time.monotonic() - started, count


def by_pyinfra(spec):
    with tempfile.TemporaryDirectory() as folder:
        inventory = Path(folder) / "inventory.py"
        options = {"ssh_port": spec["port"], "ssh_user": spec["user"], "ssh_key": spec["key"]}
        options["ssh_known_hosts_file"] = spec["known_hosts"]
        inventory.write_text(f"hosts = {[(host, options) for host in spec['hosts']]!r}\n")
        deploy = Path(folder) / "deploy.py"
        shells = "".join(f"server.shell(commands=[{c!r}])\n" for c in spec["commands"])
        deploy.write_text(f"from pyinfra.operations import server\n{shells}")
        program = Path(sys.executable).with_name("pyinfra")
        started = time.monotonic()
        done = subprocess.run(
            [program, "-y", "--parallel", str(AT_ONCE), inventory, deploy],
            capture_output=True,
            check=False,
        )
        count = 0 if done.returncode else len(spec["hosts"]) * len(spec["commands"])
        return time.monotonic() - started, count


def by_ansible(spec, module):
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            f"{host} ansible_port={spec['port']} ansible_user={spec['user']} "
            f"ansible_ssh_private_key_file={spec['key']} "
            f"ansible_ssh_common_args='-o UserKnownHostsFile={spec['known_hosts']}' "
            "ansible_python_interpreter=/usr/bin/python3"
            for host in spec["hosts"]
        ]
        inventory = Path(folder) / "hosts.ini"
        inventory.write_text("\n".join(lines))
        tasks = [{f"ansible.builtin.{module}": command} for command in spec["commands"]]
        play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
        playbook = Path(folder) / "play.json"
        playbook.write_text(json.dumps(play))
        program = Path(sys.executable).with_name("ansible-playbook")
        started = time.monotonic()
        done = subprocess.run(
            [program, "-f", str(AT_ONCE), "-i", inventory, playbook],
            capture_output=True,
            check=False,
            env={**os.environ, "HOME": folder, "ANSIBLE_PIPELINING": "1"},
        )
        count = 0 if done.returncode else len(spec["hosts"]) * len(spec["commands"])
        return time.monotonic() - started, count


PEERS = {
    "asyncssh": by_asyncssh,
    "fabric": by_fabric,
    "parallel-ssh": by_parallel_ssh,
    "pyinfra": by_pyinfra,
    "ansible raw": lambda spec: by_ansible(spec, "raw"),
    "ansible command": lambda spec: by_ansible(spec, "command"),
}

if __name__ == "__main__":
    seconds, count = PEERS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
    sys.stdout.write(json.dumps({"seconds": seconds, "answers": count}))
