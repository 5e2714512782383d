"""What a stack that runs in the background says of its start."""

from operate.stack.detached import Said


def test_what_is_said_is_passed_on_a_whole_line_at_a_time_and_once(tmp_path):
    log = tmp_path / "up.log"
    log.write_text("starting server: Prefect\n\nserver is")
    said = Said(log)

    first, nothing_new = said.more(), said.more()
    with log.open("a") as written:
        written.write(" up\nregistering deployments\n")

    assert first == ["starting server: Prefect"]
    assert nothing_new == []
    assert said.more() == ["server is up", "registering deployments"]
