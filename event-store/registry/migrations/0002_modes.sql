-- Modes that were set; the empty subject holds the global one.
create table schema_registry.modes (
    subject text collate "C" primary key,
    mode text not null
);
comment on table schema_registry.modes is 'Modes; the empty subject is the global one';
