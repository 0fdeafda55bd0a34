-- One event database per service. All text is compared by bytes (collate "C"), so that the order
-- in which rows are locked is the same everywhere, whatever the locale of the database.

-- What never changes in the life of the store: exactly one row.
create table meta (
    singleton   boolean not null primary key default true check (singleton),
    store_id    uuid not null default gen_random_uuid(),
    app         text collate "C" not null,
    service     text collate "C" not null,
    partitions  integer not null check (partitions between 1 and 1000),
    created_at  timestamptz not null default clock_timestamp()
);

-- The registry's ids of the schemas that events were written with.
create table schemas (
    id          bigint not null primary key,
    full_name   text collate "C" not null,
    schema      text collate "C" not null,
    learned_at  timestamptz not null default clock_timestamp()
);

-- The last position given out in each partition. Its row lock orders all appends to the partition.
create table heads (
    topic       text collate "C" not null,
    partition   integer not null,
    position    bigint not null default 0,
    recorded_at timestamptz,
    primary key (topic, partition)
) with (fillfactor = 20);

-- The events; also the outbox. Rows are only ever added, by append_batch.
create table events (
    topic       text collate "C" not null,
    partition   integer not null,
    position    bigint not null,
    stream_id   text collate "C" not null,
    version     bigint not null,
    event_id    uuid not null,
    command_id  uuid not null,
    -- The event's 0-based place in its command.
    ordinal     integer not null,
    type        text collate "C" not null,
    schema_id   bigint not null,
    data        bytea not null,
    -- actor, correlation_id, causation_id, traceparent; each may be absent.
    metadata    jsonb not null,
    recorded_at timestamptz not null,
    primary key (topic, partition, position),
    constraint events_one_version unique (topic, stream_id, version),
    constraint events_once unique (command_id, ordinal)
);
-- Avro is dense: trying to compress it only costs time.
alter table events alter column data set storage external;

-- The verdicts of decide that must be answered again to the same key.
create table idempotency (
    scope        text collate "C" not null,
    key          text collate "C" not null,
    request_hash bytea not null,
    command_id   uuid not null,
    -- The stream and the version that the verdict rests on, or that it made.
    topic        text collate "C" not null,
    stream_id    text collate "C" not null,
    version      bigint not null,
    verdict      jsonb not null,
    expires_at   timestamptz not null,
    primary key (scope, key)
);
create index idempotency_expires on idempotency (expires_at);

-- Who relays a partition, and how far the topic is known to hold it without a gap.
create table leases (
    topic         text collate "C" not null,
    partition     integer not null,
    owner         text collate "C",
    epoch         bigint not null default 0,
    expires_at    timestamptz,
    pid           integer,
    backend_start timestamptz,
    position      bigint not null default 0,
    "offset"      bigint,
    updated_at    timestamptz not null default clock_timestamp(),
    primary key (topic, partition)
) with (fillfactor = 20);

-- Appends a batch of commands in one round trip and answers what became of it.
--
-- Each statement of a VOLATILE function sees what was committed before that statement began, so
-- everything after the lock sees all that earlier holders of the lock committed.
--
--   p_*  the partitions touched, sorted, and how many events go to each
--   s_*  the streams touched: index into p_*, id, and the version the decisions rest on
--   c_*  the commands, those of a stream in their order: index into s_*, id, metadata
--   m_*  the further streams of commands over several: index into c_*, index into s_*
--   k_*  those with an idempotency key: index into c_*; a null verdict is looked up, not stored
--   e_*  the events, those of a stream in their order: index into c_*, index into s_*, and the
--        1-based place among the events that go to its partition
--   look whether one of the commands may have been applied already. Without it, a command id that
--        was used violates `events_once`, and the caller comes again with it
--
-- All indexes are 1-based. A stream of which nothing was written is named by a row `stale`
-- (its version is another), `stored` (a key has a verdict already) or `applied` (a command id was
-- used already: one row per event of that command); `others` rows say where the further streams of a
-- stored verdict stand. A command over several streams that fails in one fails in all of them, and
-- with it all that was decided on top of it: such streams are named `spread`. Everything else was
-- written; `head` rows say after which position of each partition.
create function append_batch(
    p_topic text[], p_partition integer[], p_events integer[],
    s_part integer[], s_stream text[], s_version bigint[],
    c_stream integer[], c_id uuid[], c_metadata text[],
    m_command integer[], m_stream integer[],
    k_command integer[], k_scope text[], k_key text[], k_hash bytea[], k_version bigint[],
    k_verdict text[], k_seconds double precision,
    e_command integer[], e_stream integer[], e_ordinal integer[], e_version bigint[], e_id uuid[], e_type text[],
    e_schema bigint[], e_data bytea[], e_place integer[], look boolean
) returns table (
    kind text, index integer, version bigint, topic text, partition integer, "position" bigint,
    stream_id text, event_id uuid, type text, same boolean, verdict jsonb
) language plpgsql volatile as $$
#variable_conflict use_column
declare
    own_keys   uuid[] := '{}';
    failed     integer[] := '{}';
    before     bigint[];
    last_times timestamptz[];
    moment     timestamptz;
    found_row  record;
    further    record;
    tied       integer[];
begin
    -- Keys before heads: the insert waits for whoever is writing the same key just now.
    if cardinality(k_command) > 0 then
        with mine as (
            insert into idempotency as i (scope, key, request_hash, command_id, topic, stream_id,
                                          version, verdict, expires_at)
            select k.scope, k.key, k.hash, c_id[k.command], p_topic[s_part[c_stream[k.command]]],
                   s_stream[c_stream[k.command]], k.version, k.verdict::jsonb,
                   clock_timestamp() + make_interval(secs => k_seconds)
            from unnest(k_command, k_scope, k_key, k_hash, k_version, k_verdict)
                as k(command, scope, key, hash, version, verdict)
            where k.verdict is not null
            order by k.scope, k.key
            on conflict (scope, key) do update
                set request_hash = excluded.request_hash, command_id = excluded.command_id,
                    topic = excluded.topic, stream_id = excluded.stream_id,
                    version = excluded.version, verdict = excluded.verdict,
                    expires_at = excluded.expires_at
                where i.expires_at <= clock_timestamp()
            returning i.command_id
        )
        select coalesce(array_agg(mine.command_id), '{}') into own_keys from mine;
    end if;

    -- What a lock had to wait for is read anew: these are the heads as they are now.
    select array_agg(locked.position), array_agg(locked.recorded_at)
    into before, last_times
    from (
        select h.position, h.recorded_at from heads h
        where (h.topic, h.partition) in (select * from unnest(p_topic, p_partition))
        order by h.topic, h.partition
        for update
    ) locked;
    if cardinality(before) is distinct from cardinality(p_topic) then
        raise exception 'a partition without a head' using errcode = 'data_exception';
    end if;

    -- From here on nobody else appends to these partitions.
    moment := clock_timestamp();

    if cardinality(own_keys) < cardinality(k_command) then
        for found_row in
            select k.command, i.request_hash = k.hash as same, i.topic, i.stream_id, i.version,
                   i.verdict, e.partition, e.position
            from unnest(k_command, k_scope, k_key, k_hash) as k(command, scope, key, hash)
            join idempotency i on i.scope = k.scope and i.key = k.key
            left join events e on e.topic = i.topic and e.stream_id = i.stream_id
                              and e.version = i.version
            where c_id[k.command] <> all (own_keys) and i.expires_at > moment
        loop
            failed := failed || c_stream[found_row.command];
            kind := 'stored'; index := found_row.command; same := found_row.same;
            topic := found_row.topic; stream_id := found_row.stream_id;
            version := found_row.version; verdict := found_row.verdict;
            partition := found_row.partition; "position" := found_row.position;
            return next;
            -- It may be large, and would stay in all rows that follow.
            verdict := null;
            for further in
                select o.topic, o.stream_id, e.partition, e.position
                from jsonb_to_recordset(found_row.verdict -> 'others')
                    as o(topic text, stream_id text, version bigint)
                join events e on e.topic = o.topic and e.stream_id = o.stream_id
                             and e.version = o.version
            loop
                kind := 'others'; topic := further.topic; stream_id := further.stream_id;
                partition := further.partition; "position" := further.position;
                return next;
            end loop;
        end loop;
    end if;

    for found_row in
        select s.n, coalesce(last.version, 0) as version
        from unnest(s_part, s_stream, s_version) with ordinality as s(part, stream, version, n)
        left join lateral (
            select e.version from events e
            where e.topic = p_topic[s.part] and e.stream_id = s.stream
            order by e.version desc limit 1
        ) last on true
        where coalesce(last.version, 0) <> s.version
    loop
        failed := failed || found_row.n::integer;
        kind := 'stale'; index := found_row.n; version := found_row.version;
        return next;
    end loop;

    if look then
        for found_row in
            select array_position(c_id, e.command_id) as command, e.topic, e.partition, e.position,
                   e.stream_id, e.version, e.event_id, e.type
            from events e where e.command_id = any (c_id) order by e.command_id, e.ordinal
        loop
            -- A row per event; the list, which every event is compared with, must not grow so.
            if c_stream[found_row.command] <> all (failed) then
                failed := failed || c_stream[found_row.command];
            end if;
            kind := 'applied'; index := found_row.command; version := found_row.version;
            topic := found_row.topic; partition := found_row.partition;
            "position" := found_row.position; stream_id := found_row.stream_id;
            event_id := found_row.event_id; type := found_row.type;
            return next;
        end loop;
    end if;

    while cardinality(m_command) > 0 loop
        select array_agg(distinct t.other) into tied
        from unnest(m_command, m_stream) as m(command, stream)
        cross join lateral (values (c_stream[m.command], m.stream),
                                   (m.stream, c_stream[m.command])) as t(one, other)
        where t.one = any (failed) and t.other <> all (failed);
        exit when tied is null;
        failed := failed || tied;
        foreach index in array tied loop
            kind := 'spread';
            return next;
        end loop;
    end loop;

    if cardinality(failed) > 0 then
        -- What is left out takes no position.
        select coalesce(array_agg(e.place order by e.n), '{}') into e_place
        from (
            select u.n, count(*) filter (where u.stream <> all (failed))
                        over (partition by s_part[u.stream] order by u.n) as place
            from unnest(e_stream) with ordinality as u(stream, n)
        ) e;
        select array_agg(coalesce(w.events, 0) order by p.n) into p_events
        from unnest(p_topic) with ordinality as p(topic, n)
        left join (
            select s_part[u.stream] as part, count(*) as events
            from unnest(e_stream) as u(stream)
            where u.stream <> all (failed)
            group by 1
        ) w on w.part = p.n;
    end if;

    if cardinality(e_id) > 0 then
        -- Never ON CONFLICT here: it would leave a hole in the positions.
        insert into events (topic, partition, position, stream_id, version, event_id, command_id,
                            ordinal, type, schema_id, data, metadata, recorded_at)
        select p_topic[e.part], p_partition[e.part], before[e.part] + e.place,
               s_stream[e.stream], e.version, e.id, c_id[e.command], e.ordinal, e.type, e.schema,
               e.data, c_metadata[e.command]::jsonb, greatest(moment, last_times[e.part])
        from (
            select u.*, s_part[u.stream] as part
            from unnest(e_command, e_stream, e_ordinal, e_version, e_id, e_type, e_schema, e_data,
                        e_place)
                as u(command, stream, ordinal, version, id, type, schema, data, place)
        ) e
        where e.stream <> all (failed);

        update heads h
        set position = h.position + w.events, recorded_at = greatest(moment, h.recorded_at)
        from unnest(p_topic, p_partition, p_events) as w(topic, partition, events)
        where h.topic = w.topic and h.partition = w.partition and w.events > 0;
    end if;

    if cardinality(failed) > 0 and cardinality(own_keys) > 0 then
        delete from idempotency i
        using unnest(k_command, k_scope, k_key) as k(command, scope, key)
        where i.scope = k.scope and i.key = k.key
          and c_id[k.command] = any (own_keys) and c_stream[k.command] = any (failed);
    end if;

    for i in 1 .. cardinality(p_topic) loop
        kind := 'head'; index := i; "position" := before[i];
        return next;
    end loop;
end
$$;
