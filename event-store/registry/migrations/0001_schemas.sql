-- Every schema ever registered. Rows are never deleted: a record in a topic names its schema by id.
create table schema_registry.schemas (
    id integer primary key check (id > 0),
    text text not null,
    hash bytea not null unique check (octet_length(hash) = 32),
    registered_at timestamptz not null default clock_timestamp()
);
comment on table schema_registry.schemas is 'Every schema ever registered, one row per distinct canonical text';
comment on column schema_registry.schemas.hash is 'SHA-256 of text; a text can be longer than an index entry may be';

-- A subject is the list of its versions.
create table schema_registry.versions (
    subject text collate "C" not null,
    version integer not null check (version > 0),
    schema_id integer not null references schema_registry.schemas (id),
    deleted boolean not null default false,
    registered_at timestamptz not null default clock_timestamp(),
    primary key (subject, version)
);
create index versions_of_schema on schema_registry.versions (schema_id);
comment on table schema_registry.versions is 'Versions of each subject; deleted = soft-deleted';

-- Compatibility levels that were set; the empty subject holds the global one.
create table schema_registry.levels (
    subject text collate "C" primary key,
    level text not null
);
comment on table schema_registry.levels is 'Compatibility levels; the empty subject is the global one';

-- One row. Whoever registers or deletes locks it first, so that ids and versions are handed out
-- in commit order and an id is never used twice.
create table schema_registry.ids (
    only_row boolean primary key default true check (only_row),
    last_id integer not null
);
insert into schema_registry.ids (last_id) values (0);
