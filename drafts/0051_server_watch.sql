-- Whether servers can be reached: looked at again and again, and told when that changes.

alter table servers
    -- When somebody was last in.
    add column reached_at timestamptz,
    -- Since when nobody gets in; null: somebody did the last time.
    add column unreachable_since timestamptz,
    -- How often in a row nobody did.
    add column misses integer not null default 0,
    -- Whoever looks after it works on it: nobody is told that it cannot be reached.
    add column maintenance boolean not null default false;
