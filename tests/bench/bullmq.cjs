// BullMQ on the same machine and the same Redis: the best of a few concurrencies, each over 40 000 empty jobs.
const { Queue, Worker } = require('bullmq');

const url = new URL(process.env.GANTRY_REDIS_URL);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const JOBS = 40_000;

async function drain(concurrency) {
    const name = `bench-${concurrency}-${process.pid}`;
    const queue = new Queue(name, { connection });
    for (let sent = 0; sent < JOBS; sent += 1_000) {
        const batch = Array.from({ length: 1_000 }, (_, i) => ({
            name: 'noop',
            data: { number: sent + i, text: 'a payload of a size that payloads usually have' },
            opts: { removeOnComplete: true },
        }));
        await queue.addBulk(batch);
    }
    let done = 0;
    const begun = process.hrtime.bigint();
    await new Promise((resolve) => {
        const worker = new Worker(name, async () => {}, { connection, concurrency });
        worker.on('completed', () => { if (++done === JOBS) worker.close().then(resolve); });
    });
    const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
    await queue.close();
    return JOBS / seconds;
}

(async () => {
    let best = 0;
    for (const concurrency of [100, 500, 1000]) best = Math.max(best, await drain(concurrency));
    console.log(`${'bullmq_drain_per_s'.padEnd(24)} ${best.toFixed(3).padStart(12)}`);
    process.exit(0);
})();
