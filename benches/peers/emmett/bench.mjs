// Appends events with Emmett's PostgreSQL event store: so many writers at once in one process,
// each with a stream of its own. The task is the first argument, as JSON; see emmett.rs.

import { CommandHandler } from '@event-driven-io/emmett';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import pg from 'pg';

const task = JSON.parse(process.argv[2]);
const { connectionString } = task;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// A pool of our own: the event store does not pass `max` on to the one that it would make.
const pool = new pg.Pool({ connectionString, max: task.pool, min: task.pool });
const eventStore = getPostgreSQLEventStore(connectionString, {
  schema: { autoMigration: 'None' },
  connectionOptions: { pool },
});
await eventStore.schema.migrate();

const metadata = { actor: task.actor };
const noteTaken = (number) => ({
  type: 'NoteTaken',
  data: { number, text: task.text },
  metadata,
});

// Where a writer is: its stream, and the version it left it at.
const begin = () => ({ stream: `pad-${randomUUID()}`, version: 0n });

const append = ({ stream, version }) =>
  eventStore.appendToStream(stream, [noteTaken(Number(version) + 1)], {
    expectedStreamVersion: version,
  });

const handle = CommandHandler({
  initialState: () => ({ notes: 0 }),
  evolve: (_, event) => ({ notes: event.data.number }),
});
const command = ({ stream }) =>
  handle(eventStore, stream, (pad) => noteTaken(pad.notes + 1));

const once = task.way === 'append' ? append : command;

// Closed loops; what ends after the warm-up and before the end counts.
const closedLoop = async (warmUpMs, measuredMs) => {
  const start = performance.now() + warmUpMs;
  const end = start + measuredMs;
  const latencies = [];
  let units = 0;
  const writer = async () => {
    let place = begin();
    for (;;) {
      const asked = performance.now();
      if (asked >= end) return;
      await once(place);
      const answered = performance.now();
      units += 1;
      if (answered >= start && answered < end) latencies.push(answered - asked);
      place.version += 1n;
      if (place.version === BigInt(task.eventsPerStream)) place = begin();
    }
  };
  await Promise.all(Array.from({ length: task.writers }, writer));
  latencies.sort((a, b) => a - b);
  const quantile = (q) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * q))];
  return {
    units,
    rate: latencies.length / (measuredMs / 1000),
    p50_ms: quantile(0.5) ?? 0,
    p99_ms: quantile(0.99) ?? 0,
  };
};

const first = await closedLoop(task.warmUpMs / 4, task.warmUpMs);
await pool.query('analyze');
say({ is: 'measuring' });
const before = process.cpuUsage();
const seen = await closedLoop(task.warmUpMs / 4, task.measuredMs);
const used = process.cpuUsage(before);
say({
  is: 'done',
  ...seen,
  acknowledged: first.units + seen.units,
  cpu_us: used.user + used.system,
  rss_mb: (process.resourceUsage().maxRSS * 1024) / 1_000_000,
});
await eventStore.close();
await pool.end();
