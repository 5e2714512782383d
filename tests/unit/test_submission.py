"""Orders handed to a server whose answer is lost."""

import json
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from operate import submission
from operate.orders import Order, Place
from recovery.errors import Unreachable
from recovery.run import Options, Recovery
from recovery.verdict import Danger

RECOVERY = Recovery("lab", lambda: None, "", (), Danger.CHANGE, lambda: "lab", {})


class Server:
    """Takes each order and loses some of its answers, as a server does that is slow for a while."""

    def __init__(self, *answers):
        self.answers, self.keys = list(answers), []

    def __call__(self, request):
        if request.url.path.endswith("/deployments/filter"):
            return httpx.Response(200, json=[DEPLOYMENT])
        if request.url.path.endswith("/create_flow_run"):
            self.keys.append(json.loads(request.content)["idempotency_key"])
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return httpx.Response(404, json={})  # what only newer servers have


DEPLOYMENT = {
    "id": str(uuid4()),
    "name": "lab",
    "flow_id": str(uuid4()),
    "created": "2027-03-01T02:14:00Z",
    "updated": "2027-03-01T02:14:00Z",
}


def submit(server):
    transport = httpx.MockTransport(server)
    with SyncPrefectClient("http://lab/api", httpx_settings={"transport": transport}) as client:
        return submission._submit(client, Order(RECOVERY, {}, Options()), Place(), {})


def test_an_order_whose_answer_was_lost_is_the_same_order_when_it_is_given_again():
    run_id = uuid4()
    run = {"id": str(run_id), "flow_id": DEPLOYMENT["flow_id"], "name": "quick-fox"}
    server = Server(httpx.ReadError("gone"), httpx.Response(201, json=run))

    assert submit(server) == run_id
    assert len(server.keys) == 2
    assert server.keys[0]
    assert len(set(server.keys)) == 1


def test_two_orders_are_two():
    run = {"id": str(uuid4()), "flow_id": DEPLOYMENT["flow_id"], "name": "quick-fox"}
    server = Server(httpx.Response(201, json=run), httpx.Response(201, json=run))

    submit(server), submit(server)

    assert len(set(server.keys)) == 2


def test_an_error_of_the_server_is_no_flaw_of_the_deployment():
    with pytest.raises(Unreachable, match="taking the run"):
        submit(Server(httpx.Response(500, json={})))
