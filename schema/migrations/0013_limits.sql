-- How much may be asked for, as data: tiers, the numbers of one organization, and what is counted by address and account.
create table rate_tiers (
    tier            text primary key check (tier ~ '^[a-z][a-z0-9_]{0,49}$'),
    -- Tiers are the platform's; every organization may read them.
    organization_id uuid not null default '00000000-0000-7000-8000-000000000000'
                    check (organization_id = '00000000-0000-7000-8000-000000000000'),
    -- Requests a minute, by class.
    read_number     integer not null check (read_number between 1 and 6000000),
    write_number    integer not null check (write_number between 1 and 6000000),
    deploy_number   integer not null check (deploy_number between 1 and 6000000),
    -- How much of a minute's may come at once after a rest.
    burst_percent   smallint not null default 100 check (burst_percent between 1 and 100),
    -- How much of the organization's one key, and one address, may use.
    key_percent     smallint not null default 100 check (key_percent between 1 and 100),
    address_percent smallint not null default 100 check (address_percent between 1 and 100)
);

-- What is counted before anybody is known: requests a minute from one address, or for one account.
create table rate_rules (
    rule            text primary key check (rule in ('anonymous', 'credentials', 'attempts_by_address',
                                                              'attempts_by_account')),
    organization_id uuid not null default '00000000-0000-7000-8000-000000000000'
                    check (organization_id = '00000000-0000-7000-8000-000000000000'),
    number          integer not null check (number between 1 and 6000000),
    burst           integer not null check (burst between 1 and 6000000)
);

-- What an organization has instead of the first tier's numbers; those without a row have the first tier.
create table organization_limits (
    organization_id uuid primary key references organizations (id),
    tier            text not null references rate_tiers (tier),
    -- Its own number of reads a minute; the other classes keep their proportion. Null: the tier's.
    number          integer check (number between 1 and 6000000),
    -- Nothing is counted for it.
    bypass          boolean not null default false,
    -- In a calendar month, UTC; null: no limit.
    monthly_calls   bigint check (monthly_calls > 0),
    monthly_bytes   bigint check (monthly_bytes > 0),
    updated_at      timestamptz not null
);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['rate_tiers', 'rate_rules', 'organization_limits'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', tenant, current_user);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
create policy everybody on rate_tiers for select to gantry_app
    using ((select scope_organization()) is not null);
create policy everybody on rate_rules for select to gantry_app
    using ((select scope_organization()) is not null);

insert into rate_tiers (tier, read_number, write_number, deploy_number) values
    ('starter', 100, 100, 100), ('professional', 500, 500, 500), ('enterprise', 2000, 2000, 2000);
insert into rate_rules (rule, number, burst) values
    ('anonymous', 300, 300), ('credentials', 300, 300), ('attempts_by_address', 20, 20), ('attempts_by_account', 20, 20);
-- Who operates the platform is not to be locked out of it by what it does.
insert into organization_limits (organization_id, tier, bypass, updated_at)
values ('00000000-0000-7000-8000-000000000000', 'enterprise', true, '2026-01-01T00:00:00Z');
