"""The generated Python client against a running platform, as a program of somebody else's would use it."""

import base64
import datetime
import hashlib
import hmac
import json
import os
import uuid

import gantry_client
from gantry_client import (
    ApiException,
    EventBulkRequest,
    EventsApi,
    InspectorApi,
    JobsApi,
    JobState,
    NewEvent,
    NewInspectorBin,
    NewWebhookEndpoint,
    Problem,
    WebhookEndpointChange,
    WebhookEndpointsApi,
)

configuration = gantry_client.Configuration(host=os.environ["GANTRY_URL"], access_token=os.environ["GANTRY_API_KEY"])
client = gantry_client.ApiClient(configuration)
inspector, endpoints = InspectorApi(client), WebhookEndpointsApi(client)
events, jobs = EventsApi(client), JobsApi(client)


def refused(operation):
    """The problem document that an operation is refused with."""
    try:
        operation()
    except ApiException as error:
        assert isinstance(error.data, Problem), error
        assert error.data.status == error.status
        return error.data
    raise AssertionError("it was done")


# An endpoint that leads to a bin of the inspector.
bin = inspector.create_inspector_bin(NewInspectorBin(name="Python"))
type = f"python.{uuid.uuid4().hex}"
made = endpoints.create_webhook_endpoint(NewWebhookEndpoint(url=f"{bin.url}/hooks", event_types=[type]))
assert made.secret.startswith("whsec_")
endpoint = made.id

# An event, sent twice by the same name: it is the same, and delivered once.
key = str(uuid.uuid4())
event = NewEvent(type=type, payload={"amount_minor": 4_200, "note": "déjà vu"})
posted = events.post_event(event, idempotency_key=key)
again = events.post_event_with_http_info(event, idempotency_key=key)
assert again.headers["idempotency-replayed"] == "true" and again.data == posted
other = NewEvent(type=type, payload={})
assert refused(lambda: events.post_event(other, idempotency_key=key)).code == "idempotency_key_reused"

# The job that delivers it, awaited; and what it delivered, verified.
(delivery,) = posted.jobs
job = jobs.get_job(delivery.job_id, wait=30)
assert job.state is JobState.SUCCEEDED and len(job.attempts) == 1, job
assert isinstance(job.finished_at, datetime.datetime) and job.finished_at.tzinfo is not None
(received,) = inspector.list_inspected_requests(bin.id).items
headers = {header.name: header.value for header in received.headers}
signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{received.body}".encode()
digest = hmac.digest(base64.b64decode(made.secret.removeprefix("whsec_")), signed, hashlib.sha256)
assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
assert json.loads(received.body)["data"] == event.payload

# More of them, and a walk through the attempts, page by page.
more = events.post_events(EventBulkRequest(events=[event] * 5))
for one in more.events:
    assert jobs.get_job(one.jobs[0].job_id, wait=30).state is JobState.SUCCEEDED
attempts, pages, cursor = [], 0, None
while pages == 0 or cursor:
    page = endpoints.list_webhook_attempts(endpoint, limit=2, cursor=cursor)
    attempts += page.items
    pages, cursor = pages + 1, page.next_cursor
assert len({attempt.id for attempt in attempts}) == 6 and pages == 3
assert all(attempt.succeeded and attempt.status == 200 for attempt in attempts)

# A refusal says what is wrong, in types.
unknown = refused(lambda: jobs.get_job(endpoint.replace("ep_", "job_")))
assert unknown.status == 404 and unknown.code == "not_found" and unknown.request_id.startswith("req_")
wrong = refused(lambda: endpoints.create_webhook_endpoint(NewWebhookEndpoint(url="gopher://example.com")))
assert (wrong.status, wrong.code, wrong.field) == (422, "invalid_field", "url")

# A change on condition; the second one has not seen the first.
etag = endpoints.get_webhook_endpoint_with_http_info(endpoint).headers["etag"]
change = WebhookEndpointChange(description="changed", rate_per_second=5)
changed = endpoints.update_webhook_endpoint_with_http_info(endpoint, change, if_match=etag)
assert changed.data.rate_per_second == 5
freed = WebhookEndpointChange(rate_per_second=None)
free = endpoints.update_webhook_endpoint(endpoint, freed, if_match=changed.headers["etag"])
assert free.description == "changed" and free.rate_per_second is None
late = WebhookEndpointChange(enabled=False)
assert refused(lambda: endpoints.update_webhook_endpoint(endpoint, late, if_match=etag)).code == "precondition_failed"

# The feed, as a stream.
stream = events.follow_events_without_preload_content(types=type, after="beginning")
told = next(line for line in stream if line.startswith(b"id:"))
assert posted.id in told.decode(), told
stream.close()

endpoints.delete_webhook_endpoint(endpoint)
inspector.delete_inspector_bin(bin.id)
print("python: an endpoint, an event, its delivery, three pages of attempts, conditions, refusals and the feed")
