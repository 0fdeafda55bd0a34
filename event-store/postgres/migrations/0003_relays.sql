-- The relays that live, by the database's clock. From how many there are follows how many
-- partitions each may hold; those that are here longer come first when they do not come out even.
create table relays (
    owner       text collate "C" not null primary key,
    since       timestamptz not null default clock_timestamp(),
    expires_at  timestamptz not null
) with (fillfactor = 20);
