-- The last kept state of a stream, for aggregates that ask for it. Never needed: whatever is here
-- follows from the events, and is ignored when it does not fit them.
create table snapshots (
    topic          text collate "C" not null,
    stream_id      text collate "C" not null,
    -- That of the state, as the aggregate declares it.
    schema_version bigint not null,
    -- The last event folded into the state, and where it stands.
    version        bigint not null,
    position       bigint not null,
    -- JSON. Not jsonb: nothing looks into it, and jsonb knows no U+0000.
    state          bytea not null,
    taken_at       timestamptz not null default clock_timestamp(),
    primary key (topic, stream_id)
);
