"""The host that playbooks are run from."""

from blocks.deploy_machine import deploy_machine
from blocks.ssh.detached import DetachedCommand
from blocks.ssh.login import own_user


def test_a_url_without_user_runs_as_the_account_that_logs_in(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ops")
    machine = deploy_machine("ssh://deploy.example?host_key=SHA256:" + "A" * 43)

    command = machine._as_login(DetachedCommand("playbook", ("ansible-playbook", "x.yml"), 60))

    assert own_user() == "ops"
    assert list(command.argv)[:4] == ["runuser", "-u", "ops", "--"]
