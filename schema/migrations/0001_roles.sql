-- Three roles, so that no mistake in a query can cross a tenant's border:
--   the owner      runs migrations (whoever applies this file);
--   gantry_app     API requests and job handlers: sees the organization of its transaction, owns nothing;
--   gantry_engine  claims and settles the jobs of everybody, and sees nothing but jobs.
-- gantry_tree owns the one function that maintains the organizations' closure table; nobody logs in as it.
-- Roles belong to the whole server, so another database may have made them already, even at this moment.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['gantry_app login', 'gantry_engine login', 'gantry_tree nologin'] loop
        begin
            execute 'create role ' || wanted;
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;
end
$$;

do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user)
       and not pg_has_role(current_user, 'gantry_tree', 'member') then
        execute format('grant gantry_tree to %I', current_user);
    end if;
end
$$;

revoke create on schema public from public;
grant usage on schema public to gantry_app, gantry_engine, gantry_tree;

-- The organization a transaction acts for. Without one, no row of any tenant is visible.
create function scope_organization() returns uuid
    language sql stable parallel safe
    as $$ select nullif(current_setting('gantry.organization', true), '')::uuid $$;
