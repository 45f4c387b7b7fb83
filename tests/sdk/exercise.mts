// The generated TypeScript client against a running platform, as a program of somebody else's would use it.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';

import {
    Configuration,
    EventsApi,
    InspectorApi,
    JobsApi,
    ProblemFromJSON,
    ResponseError,
    WebhookEndpointsApi,
    type Problem,
    type WebhookAttempt,
} from 'gantry-client';

const configuration = new Configuration({ basePath: process.env.GANTRY_URL, accessToken: process.env.GANTRY_API_KEY });
const inspector = new InspectorApi(configuration);
const endpoints = new WebhookEndpointsApi(configuration);
const events = new EventsApi(configuration);
const jobs = new JobsApi(configuration);

/** The problem document that an operation is refused with. */
async function refused(operation: Promise<unknown>): Promise<Problem> {
    const error = await operation.then(
        () => assert.fail('it was done'),
        (error: unknown) => error,
    );
    assert(error instanceof ResponseError, String(error));
    return ProblemFromJSON(await error.response.json());
}

// An endpoint that leads to a bin of the inspector.
const bin = await inspector.createInspectorBin({ newInspectorBin: { name: 'TypeScript' } });
const type = `typescript.${randomUUID().replaceAll('-', '_')}`;
const made = await endpoints.createWebhookEndpoint({
    newWebhookEndpoint: { url: `${bin.url}/hooks`, eventTypes: [type] },
});
const endpoint = made.id;
const secret = made.secret ?? assert.fail('no secret');

// An event, sent twice by the same name: it is the same, and delivered once.
const idempotencyKey = randomUUID();
const event = { type, payload: { amount_minor: 4_200, note: 'déjà vu' } };
const posted = await events.postEvent({ newEvent: event, idempotencyKey });
const again = await events.postEventRaw({ newEvent: event, idempotencyKey });
assert.equal(again.raw.headers.get('idempotency-replayed'), 'true');
assert.deepEqual(await again.value(), posted);
const reused = await refused(events.postEvent({ newEvent: { ...event, payload: {} }, idempotencyKey }));
assert.equal(reused.code, 'idempotency_key_reused');

// The job that delivers it, awaited; and what it delivered, verified.
const [delivery] = posted.jobs;
assert(delivery);
const job = await jobs.getJob({ job: delivery.jobId, wait: 30 });
assert.equal(job.state, 'succeeded');
assert(job.finishedAt instanceof Date && job.attempts.length === 1);
const [received, ...rest] = (await inspector.listInspectedRequests({ bin: bin.id })).items;
assert(received?.body && rest.length === 0);
const header = (name: string) => received.headers.find((header) => header.name === name)?.value ?? '';
const signed = `${header('webhook-id')}.${header('webhook-timestamp')}.${received.body}`;
const hmac = createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64')).update(signed);
assert.equal(header('webhook-signature'), `v1,${hmac.digest('base64')}`);
assert.deepEqual(JSON.parse(received.body).data, event.payload);

// More of them, and a walk through the attempts, page by page.
const five = await events.postEvents({ eventBulkRequest: { events: Array.from({ length: 5 }, () => event) } });
for (const { jobs: [{ jobId }] } of five.events) {
    assert.equal((await jobs.getJob({ job: jobId, wait: 30 })).state, 'succeeded');
}
const attempts: WebhookAttempt[] = [];
let pages = 0;
for (let cursor: string | undefined, more = true; more; pages += 1) {
    const page = await endpoints.listWebhookAttempts({ endpoint, limit: 2, cursor });
    attempts.push(...page.items);
    cursor = page.nextCursor;
    more = cursor !== undefined;
}
assert.equal(new Set(attempts.map((attempt) => attempt.id)).size, 6);
assert(pages === 3 && attempts.every((attempt) => attempt.succeeded && attempt.status === 200));

// A refusal says what is wrong, in types.
const unknown = await refused(jobs.getJob({ job: endpoint.replace('ep_', 'job_') }));
assert(unknown.status === 404 && unknown.code === 'not_found' && unknown.requestId.startsWith('req_'));
const wrong = await refused(endpoints.createWebhookEndpoint({ newWebhookEndpoint: { url: 'gopher://example.com' } }));
assert(wrong.status === 422 && wrong.code === 'invalid_field' && wrong.field === 'url');

// A change on condition; the second one has not seen the first.
const seen = await endpoints.getWebhookEndpointRaw({ endpoint });
const ifMatch = seen.raw.headers.get('etag') ?? '';
const change = { description: 'changed', ratePerSecond: 5 };
const changed = await endpoints.updateWebhookEndpointRaw({ endpoint, ifMatch, webhookEndpointChange: change });
assert.equal((await changed.value()).ratePerSecond, 5);
const next = changed.raw.headers.get('etag') ?? '';
const freed = { ratePerSecond: null };
const free = await endpoints.updateWebhookEndpoint({ endpoint, ifMatch: next, webhookEndpointChange: freed });
assert(free.description === 'changed' && free.ratePerSecond === undefined);
const late = await refused(endpoints.updateWebhookEndpoint({ endpoint, ifMatch, webhookEndpointChange: { enabled: false } }));
assert.equal(late.code, 'precondition_failed');

// The feed, as a stream.
const stream = await events.followEventsRaw({ types: type, after: 'beginning' });
const reader = stream.raw.body?.pipeThrough(new TextDecoderStream()).getReader();
let told = '';
while (!told.includes('\n\n')) told += (await reader?.read())?.value ?? assert.fail('the stream ended');
await reader?.cancel();
assert(told.includes(`id: ${posted.id}`) || told.includes(`id:${posted.id}`), told);

await endpoints.deleteWebhookEndpoint({ endpoint });
await inspector.deleteInspectorBin({ bin: bin.id });
console.log('typescript: an endpoint, an event, its delivery, three pages of attempts, conditions, refusals and the feed');
