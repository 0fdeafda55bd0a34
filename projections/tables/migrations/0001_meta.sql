-- The read side's own tables. Rows of read models lie in schemas of their own, one per build.
-- The schema meta is there already: it holds the list of migrations.
comment on schema meta is 'What the platform knows of its read models: builds, checkpoints, freshness, lineage.';
create schema read;
comment on schema read is 'One view per read model: the build that is current.';
create schema analytics;
comment on schema analytics is 'One view per read model, for analysts; names and meaning of the columns are stable.';

create table meta.builds (
  read_model text collate "C" not null,
  build int4 not null check (build > 0),
  version int4 not null check (version > 0),
  state text collate "C" not null check (state in ('live', 'building', 'replaced')),
  declaration text collate "C" not null,
  created_at timestamptz not null default now(),
  changed_at timestamptz not null default now(),
  primary key (read_model, build)
);
-- The pointer: readers take the build that is live in their own snapshot.
create unique index builds_one_live on meta.builds (read_model) where state = 'live';
comment on table meta.builds is 'One row per build of a read model; the live one is read.';
comment on column meta.builds.read_model is 'Name of the read model.';
comment on column meta.builds.build is 'Counts up with each rebuild; the tables lie in schema rm_<read model>_b<build>.';
comment on column meta.builds.version is 'Version of the declaration that the build was made from.';
comment on column meta.builds.state is 'live, building or replaced.';
comment on column meta.builds.declaration is 'Columns, merges and topics as declared; the same version never changes them.';
comment on column meta.builds.created_at is 'When the build was begun.';
comment on column meta.builds.changed_at is 'When its state last changed.';

create table meta.lineage (
  read_model text collate "C" not null,
  build int4 not null,
  topic text collate "C" not null,
  kind text collate "C" not null check (kind in ('folded', 'added')),
  primary key (read_model, build, topic),
  foreign key (read_model, build) references meta.builds on delete cascade
);
comment on table meta.lineage is 'Which topics feed which read model.';
comment on column meta.lineage.read_model is 'Name of the read model.';
comment on column meta.lineage.build is 'Its build.';
comment on column meta.lineage.topic is 'Kafka topic whose events are folded into it.';
comment on column meta.lineage.kind is 'folded: each event changes the one row of its stream; added: each event adds to rows that many streams share.';

create table meta.checkpoints (
  read_model text collate "C" not null,
  build int4 not null,
  topic text collate "C" not null,
  partition int4 not null check (partition >= 0),
  position int8 not null default 0 check (position >= 0),
  "offset" int8,
  store_id uuid,
  event_id uuid,
  epoch int8 not null default 1,
  attempts int4 not null default 0,
  state text collate "C" not null default 'running'
    check (state in ('running', 'gap', 'failed')),
  detail text collate "C",
  state_since timestamptz not null default now(),
  last_event_at timestamptz,
  updated_at timestamptz not null default now(),
  primary key (read_model, build, topic, partition),
  foreign key (read_model, build) references meta.builds on delete cascade
);
-- Every batch rewrites its rows: room on the page keeps them where they are.
alter table meta.checkpoints set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 1000);
comment on table meta.checkpoints is 'How far each build has folded each topic-partition; moves in the transaction that writes the rows.';
comment on column meta.checkpoints.read_model is 'Name of the read model.';
comment on column meta.checkpoints.build is 'Its build.';
comment on column meta.checkpoints.topic is 'Kafka topic.';
comment on column meta.checkpoints.partition is 'Partition of the topic.';
comment on column meta.checkpoints.position is 'Position of the last event folded; 0 before the first.';
comment on column meta.checkpoints."offset" is 'Kafka offset of that event''s record.';
comment on column meta.checkpoints.store_id is 'Event store that gave the positions.';
comment on column meta.checkpoints.event_id is 'Id of the last event folded.';
comment on column meta.checkpoints.epoch is 'Counts the owners; a write of an earlier owner changes nothing.';
comment on column meta.checkpoints.attempts is 'Assignments since the last commit.';
comment on column meta.checkpoints.state is 'running; gap: an event is missing in the topic; failed: an event could not be folded.';
comment on column meta.checkpoints.detail is 'Why, when the state is not running.';
comment on column meta.checkpoints.state_since is 'When the state last changed.';
comment on column meta.checkpoints.last_event_at is 'When the last event folded was recorded.';
comment on column meta.checkpoints.updated_at is 'When the checkpoint last moved.';

create table meta.heads (
  topic text collate "C" not null,
  partition int4 not null,
  position int8 not null,
  recorded_at timestamptz,
  updated_at timestamptz not null default now(),
  previous_position int8 not null default 0,
  previous_at timestamptz not null default now(),
  primary key (topic, partition)
);
alter table meta.heads set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 1000);
comment on table meta.heads is 'Last position of each topic-partition, written by the relay each second.';
comment on column meta.heads.topic is 'Kafka topic.';
comment on column meta.heads.partition is 'Partition of the topic.';
comment on column meta.heads.position is 'Position of the last event that was committed.';
comment on column meta.heads.recorded_at is 'When that event was recorded.';
comment on column meta.heads.updated_at is 'When the relay last looked.';
comment on column meta.heads.previous_position is 'The head before it last moved.';
comment on column meta.heads.previous_at is 'When the relay last saw that earlier head: later events are younger.';

-- Lag of one partition: null when the heads are not known for 5 s, 0 when it is caught up.
create view meta.partitions as
select l.read_model, l.build, h.topic, h.partition,
  coalesce(c.position, 0) as position, h.position as head, c.state, c.detail,
  c.last_event_at, c.updated_at,
  case when h.updated_at > now() - interval '5 s'
    then greatest(h.position - coalesce(c.position, 0), 0) end as lag_events,
  case
    when h.updated_at <= now() - interval '5 s' then null
    when coalesce(c.position, 0) >= h.position then 0
    -- The first event that is not folded is younger than the head it follows.
    when coalesce(c.position, 0) >= h.previous_position
      then greatest(extract(epoch from now() - greatest(h.previous_at, c.last_event_at)), 0)
    else greatest(extract(epoch from now() - coalesce(c.last_event_at, h.recorded_at)), 0)
  end::float8 as lag_seconds
from meta.lineage l
join meta.heads h on h.topic = l.topic
left join meta.checkpoints c on c.read_model = l.read_model and c.build = l.build
  and c.topic = h.topic and c.partition = h.partition;
comment on view meta.partitions is 'Freshness by topic-partition.';

create view meta.freshness as
select b.read_model, b.version, b.build,
  case
    when bool_or(c.state = 'failed') then 'failed'
    when bool_or(c.state = 'gap') then 'gap'
    else b.state
  end as state,
  coalesce(sum(c.position), 0)::int8 as position,
  max(c.last_event_at) as last_event_at,
  max(c.updated_at) as updated_at,
  (select case when bool_and(p.lag_events is not null) then sum(p.lag_events) end
    from meta.partitions p where p.read_model = b.read_model and p.build = b.build)::int8
    as lag_events,
  (select case when bool_and(p.lag_seconds is not null) then max(p.lag_seconds) end
    from meta.partitions p where p.read_model = b.read_model and p.build = b.build)
    as lag_seconds
from meta.builds b
left join meta.checkpoints c on c.read_model = b.read_model and c.build = b.build
group by b.read_model, b.version, b.build, b.state;
comment on view meta.freshness is 'How fresh each build of each read model is.';
comment on column meta.freshness.read_model is 'Name of the read model.';
comment on column meta.freshness.version is 'Version of its declaration.';
comment on column meta.freshness.build is 'Its build.';
comment on column meta.freshness.state is 'live, building, replaced, gap (an event is missing in a topic) or failed (an event could not be folded).';
comment on column meta.freshness.position is 'Number of events folded: the sum of the positions of all partitions.';
comment on column meta.freshness.last_event_at is 'When the latest event folded was recorded.';
comment on column meta.freshness.updated_at is 'When events were last folded.';
comment on column meta.freshness.lag_events is 'Events not yet folded; null when that is not known.';
comment on column meta.freshness.lag_seconds is 'Age of the oldest event not yet folded, at most; 0 when there is none, null when that is not known.';

create view meta.dictionary as
select c.relname::text as read_model, a.attname::text as column_name, a.attnum::int4 as place,
  format_type(a.atttypid, a.atttypmod) as type,
  col_description(c.oid, a.attnum) as description,
  obj_description(c.oid, 'pg_class') as read_model_description
from pg_class c
join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'analytics'
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind = 'v'
order by c.relname, a.attnum;
comment on view meta.dictionary is 'Every column that analysts see, with its meaning.';
comment on column meta.dictionary.read_model is 'Name of the read model, also of its view in analytics.';
comment on column meta.dictionary.column_name is 'Name of the column.';
comment on column meta.dictionary.place is 'Place of the column in the view, from 1.';
comment on column meta.dictionary.type is 'Type of the column.';
comment on column meta.dictionary.description is 'What the column means.';
comment on column meta.dictionary.read_model_description is 'What a row is.';

create function meta.micros(at timestamptz) returns int8 language sql immutable parallel safe
return (extract(epoch from at) * 1000000)::int8;

-- The live build of a read model with its checkpoints and the heads, all of the caller's snapshot.
-- plpgsql, because it keeps the plan; an SQL function would be planned anew by each reader.
create function meta.snapshot(wanted text) returns json language plpgsql stable parallel safe as $$
begin
  return (
  select json_build_object(
    'build', b.build, 'version', b.version, 'now', meta.micros(clock_timestamp()),
    'partitions', coalesce((
      select json_agg(json_build_object(
        'topic', topic, 'partition', partition, 'position', coalesce(c.position, 0),
        'store_id', c.store_id, 'state', coalesce(c.state, 'running'),
        'last_event_at', meta.micros(c.last_event_at), 'updated_at', meta.micros(c.updated_at),
        'head', h.position, 'head_at', meta.micros(h.updated_at)
      ) order by topic, partition)
      from (
        select * from meta.checkpoints k
        where k.read_model = b.read_model and k.build = b.build
      ) c
      full join (
        select * from meta.heads e where e.topic in (
          select l.topic from meta.lineage l
          where l.read_model = b.read_model and l.build = b.build)
      ) h using (topic, partition)
    ), '[]'))
  from meta.builds b where b.read_model = wanted and b.state = 'live'
  );
end
$$;
comment on function meta.snapshot(text) is 'The live build of a read model with its checkpoints and heads, as JSON.';
