use serde_json::{Value, json};

use crate::clouds::account::{Headroom, Key, Mark, Needs, Quota, Removal, Thing, Vendor};
use crate::clouds::price::Price;
use crate::clouds::testing::{Asked, Cloud, Reply, suite};

const TOKEN: &str = "dop_v1_0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

fn key() -> Key {
    Key::of(Vendor::Digitalocean, [("token", TOKEN)]).unwrap()
}

fn said(status: u16, body: &Value) -> Reply {
    Reply::of(status, body.to_string())
}

fn refused(status: u16, id: &str, message: &str) -> Reply {
    said(status, &json!({ "id": id, "message": message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9" }))
}

fn owner(status: &str) -> Value {
    json!({ "account": {
        "droplet_limit": 25, "floating_ip_limit": 5, "volume_limit": 10, "email": "ci@acme.example",
        "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef", "email_verified": true, "status": status,
        "status_message": "", "team": { "uuid": "5df3e3004a17e242b7c20ca6c9fc25b701a47ece", "name": "Acme" },
    } })
}

fn cloud(asked: &Asked) -> Reply {
    assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let list = |name: &str, all: Value| said(200, &json!({ name: all, "links": {}, "meta": { "total": 7 } }));
    match (asked.method.as_str(), path) {
        ("GET", "/v2/account") => said(200, &owner("active")),
        ("POST", "/v2/vpcs") => refused(403, "forbidden", "You are missing the required permission vpc:create"),
        ("POST", _) => refused(422, "unprocessable_entity", "Name is needed"),
        ("GET", "/v2/regions") => list(
            "regions",
            json!([
                { "slug": "fra1", "name": "Frankfurt 1", "available": true, "sizes": [], "features": [] },
                { "slug": "nyc2", "name": "New York 2", "available": false, "sizes": [], "features": [] },
            ]),
        ),
        ("GET", "/v2/sizes") => {
            let of = |slug: &str, available: bool| {
                json!({
                    "slug": slug, "memory": 2048, "vcpus": 1, "disk": 50, "transfer": 2.0, "price_monthly": 12.0,
                    "price_hourly": 0.01786, "regions": ["fra1", "nyc2", "elsewhere"], "available": available,
                    "description": "Basic",
                })
            };
            let page = if query.contains("page=1&") { of("s-1vcpu-2gb", true) } else { of("s-1vcpu-1gb", false) };
            let links = if query.contains("page=1&") {
                json!({ "pages": { "next": "http://169.254.169.254/v2/sizes?page=2", "last": "" } })
            } else {
                json!({ "pages": { "first": "", "prev": "" } })
            };
            said(200, &json!({ "sizes": [page], "links": links, "meta": { "total": 2 } }))
        }
        ("GET", "/v2/images") => list(
            "images",
            json!([
                { "id": 1, "slug": "debian-12-x64", "name": "12 x64", "distribution": "Debian", "status": "available" },
                { "id": 2, "slug": "rockylinux-9-x64", "name": "9 x64", "distribution": "Rocky Linux", "status": "available" },
                { "id": 3, "slug": null, "name": "old", "distribution": "Debian", "status": "retired" },
            ]),
        ),
        ("GET", "/v2/droplets") if query.contains("tag_name") => {
            assert!(query.contains("tag_name=gantry-server%3Asrv_1"), "{query}");
            list(
                "droplets",
                json!([
                    { "id": 77, "name": "web-1", "tags": ["gantry-server:srv_1"], "region": { "slug": "fra1" } },
                    { "id": 78, "name": "not-ours", "tags": [], "region": { "slug": "fra1" } },
                ]),
            )
        }
        ("GET", "/v2/reserved_ips") => list(
            "reserved_ips",
            json!([
                { "ip": "203.0.113.5", "droplet": { "id": 77, "tags": ["gantry-server:srv_1"] }, "region": { "slug": "fra1" } },
                { "ip": "203.0.113.6", "droplet": null, "region": { "slug": "fra1" } },
            ]),
        ),
        ("GET", "/v2/volumes") => list(
            "volumes",
            json!([
                { "id": "506f78a4", "name": "data-srv-1", "tags": ["gantry-server:srv_1"], "region": { "slug": "fra1" } },
                { "id": "506f78a5", "name": "other", "tags": ["gantry-server:srv_12"], "region": { "slug": "fra1" } },
            ]),
        ),
        ("GET", "/v2/firewalls") => list(
            "firewalls",
            json!([{ "id": "fw-1", "name": "gantry-srv-1" }, { "id": "fw-2", "name": "gantry-srv-12" }]),
        ),
        ("GET", "/v2/vpcs") => list("vpcs", json!([{ "id": "vpc-1", "name": "gantry-srv-1", "region": "fra1" }])),
        ("GET", "/v2/account/keys") => list("ssh_keys", json!([{ "id": 512_189, "name": "gantry-srv-1" }])),
        ("GET", _) => list(path.rsplit('/').next().unwrap(), json!([])),
        ("DELETE", "/v2/droplets/77") => Reply::of(204, ""),
        ("DELETE", "/v2/volumes/506f78a4") => {
            refused(404, "not_found", "The resource you were accessing could not be found.")
        }
        ("DELETE", "/v2/vpcs/vpc-1") => refused(403, "forbidden", "Can not delete VPC with members"),
        _ => refused(403, "forbidden", "You are not authorized to perform this operation"),
    }
}

#[tokio::test]
async fn digitalocean_keeps_what_accounts_keep() {
    suite(&key(), TOKEN).await;
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_what_it_may() {
    let cloud = Cloud::start(cloud).await;
    let identity = cloud.account(key()).validate().await.unwrap();
    assert_eq!((identity.name.as_str(), identity.account.len()), ("Acme", 40));
    assert_eq!(identity.missing().collect::<Vec<_>>(), ["vpc:create"]);
    let locked = Cloud::always(said(200, &owner("locked"))).await;
    assert_eq!(locked.account(key()).validate().await.unwrap_err().code(), "credential_refused");
    for (status, id, message, name) in [
        (401, "Unauthorized", "Unable to authenticate you", "credential_refused"),
        (429, "too_many_requests", "API Rate limit exceeded.", "put_off"),
        (403, "forbidden", "You are not authorized to perform this operation", "rejected"),
    ] {
        let refusing = Cloud::always(refused(status, id, message)).await;
        let error = refusing.account(key()).validate().await.unwrap_err();
        assert!(error.code() == name && error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn the_catalogue_is_read_page_by_page_and_only_from_where_it_was_asked() {
    let cloud = Cloud::start(cloud).await;
    let catalogue = cloud.account(key()).catalogue(None).await.unwrap();
    assert_eq!(catalogue.regions.iter().filter(|it| it.available).count(), 1);
    let sizes: Vec<(&str, bool)> = catalogue.sizes.iter().map(|it| (&*it.id, it.deprecated)).collect();
    assert_eq!(sizes, [("s-1vcpu-2gb", false), ("s-1vcpu-1gb", true)]);
    let offer = catalogue.sizes[0].offer("fra1").unwrap();
    assert_eq!((offer.hourly, offer.monthly), (Price::read("0.01786"), Price::read("12")));
    assert!(catalogue.sizes[0].offer("elsewhere").is_none());
    assert_eq!(catalogue.images.len(), 1);
    assert_eq!(catalogue.images[0].name, "Debian 12 x64");
}

#[tokio::test]
async fn what_is_needed_is_compared_with_what_is_used_and_allowed() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let catalogue = account.catalogue(None).await.unwrap();
    let size = &catalogue.sizes[0];
    let needs = Needs { region: "fra1", size, static_address: true, volume_gib: 10 };
    let headroom = account.headroom(&needs).await.unwrap();
    let Headroom::Said(quotas) = &headroom else { panic!() };
    assert_eq!(quotas[0], Quota { name: "droplets".to_owned(), needed: 1, used: 7, allowed: 25 });
    assert_eq!(quotas.len(), 3);
    let refusal = headroom.refusal().unwrap();
    assert_eq!(refusal.said, "1 more of reserved IPs are needed, and 7 of 5 are used");
    let needs = Needs { static_address: false, volume_gib: 0, ..needs };
    assert_eq!(account.headroom(&needs).await.unwrap().refusal(), None);
}

#[tokio::test]
async fn what_is_left_is_found_by_tags_and_names_and_removed() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let things = account.tagged("fra1", "srv_1").await.unwrap();
    let found: Vec<(&str, &str)> = things.iter().map(|it| (&*it.kind, &*it.id)).collect();
    let expected = [
        ("reserved_ip", "203.0.113.5"),
        ("droplet", "77"),
        ("volume", "506f78a4"),
        ("firewall", "fw-1"),
        ("vpc", "vpc-1"),
        ("ssh_key", "512189"),
    ];
    assert_eq!(found, expected);
    assert_eq!(account.remove(&things[1]).await.unwrap(), Removal::Removed);
    assert_eq!(account.remove(&things[2]).await.unwrap(), Removal::Gone);
    assert_eq!(account.remove(&things[4]).await.unwrap_err().code(), "put_off");
    assert_eq!(account.remove(&things[5]).await.unwrap_err().code(), "rejected");
    let other = Thing { kind: "account".to_owned(), ..things[0].clone() };
    assert_eq!(account.remove(&other).await.unwrap_err().code(), "configuration");
}

#[tokio::test]
async fn what_was_made_for_an_organization_is_found_by_its_tags_and_the_rest_by_its_name() {
    let cloud = Cloud::start(|asked| {
        let path = asked.path.split('?').next().unwrap().trim_start_matches("/v2/");
        let tags = |organization: &str| {
            json!(["gantry-server:srv_1", format!("gantry-organization:{organization}"), "gantry-installation:ins-1"])
        };
        let named = |name: &str| json!({ "id": name, "name": name });
        let (ours, other) = ("gantry-srv-01h455vb4pex5vsknk084sn02q", "gantry-srv-website");
        let all = match path {
            "droplets" => {
                assert!(asked.path.contains("tag_name=gantry-installation%3Ains-1"), "{}", asked.path);
                json!([{ "id": 1, "tags": tags("org_1") }, { "id": 2, "tags": tags("org_2") }])
            }
            "volumes" => {
                json!([{ "id": "v-1", "tags": tags("org_1") }, { "id": "v-2", "tags": ["gantry-server:srv_1"] }])
            }
            "reserved_ips" => {
                json!([{ "ip": "203.0.113.5", "droplet": { "tags": tags("org_1") } }, { "ip": "203.0.113.6", "droplet": null }])
            }
            _ => json!([named(ours), named(other), named("web")]),
        };
        let member = if path == "account/keys" { "ssh_keys" } else { path };
        said(200, &json!({ member: all }))
    });
    let mark = Mark { installation: "ins-1", organization: "org_1" };
    let marked = cloud.await.account(key()).marked("", mark).await.unwrap();
    let found: Vec<(&str, &str, bool)> = marked.iter().map(|it| (&*it.thing.kind, &*it.server, it.by_label)).collect();
    let named = "srv_01h455vb4pex5vsknk084sn02q";
    let expected = [
        ("reserved_ip", "srv_1", true),
        ("droplet", "srv_1", true),
        ("volume", "srv_1", true),
        ("firewall", named, false),
        ("vpc", named, false),
        ("ssh_key", named, false),
    ];
    assert_eq!(found, expected);
}
