use serde_json::{Value, json};

use crate::clouds::account::{Architecture, Headroom, Key, Mark, Removal, Thing, Vendor};
use crate::clouds::price::Price;
use crate::clouds::testing::{Asked, Cloud, Reply, suite};

const TOKEN: &str = "jEheVytlAoFl7F8MqUQ7jAo2hOXASztXjEheVytlAoFl7F8MqUQ7jAo2hOXASztX";

fn key() -> Key {
    Key::of(Vendor::Hetzner, [("token", TOKEN)]).unwrap()
}

fn said(status: u16, body: &Value) -> Reply {
    Reply::of(status, body.to_string())
}

fn refused(status: u16, code: &str) -> Reply {
    said(status, &json!({ "error": { "code": code, "message": format!("no, says {code}"), "details": null } }))
}

/// A list in pages of its own size.
fn pages(name: &str, asked: &Asked, all: &[Value], size: usize) -> Reply {
    let query: url::Url = format!("http://x{}", asked.path).parse().unwrap();
    let page = query.query_pairs().find(|(name, _)| name == "page").map_or(1, |(_, page)| page.parse().unwrap());
    let chosen: Vec<&Value> = all.iter().skip((page - 1) * size).take(size).collect();
    let next = (page * size < all.len()).then_some(page + 1);
    let meta =
        json!({ "pagination": { "page": page, "per_page": size, "next_page": next, "total_entries": all.len() } });
    said(200, &json!({ name: chosen, "meta": meta }))
}

fn price(location: &str, hourly: &str, monthly: &str) -> Value {
    let of = |net: &str| json!({ "net": net, "gross": "99.0000000000000000" });
    json!({ "location": location, "price_hourly": of(hourly), "price_monthly": of(monthly), "included_traffic": 1 })
}

fn cloud(asked: &Asked) -> Reply {
    assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));
    let path = asked.path.split('?').next().unwrap();
    match (asked.method.as_str(), path) {
        ("GET", "/v1/servers") if !asked.path.contains("label_selector") => said(200, &json!({ "servers": [] })),
        ("POST", "/v1/ssh_keys") => refused(422, "invalid_input"),
        ("GET", "/v1/pricing") => said(
            200,
            &json!({ "pricing": {
            "currency": "EUR", "vat_rate": "19.00",
            "volume": { "price_per_gb_month": { "net": "0.0440000000", "gross": "0.0523600000" } },
            "primary_ips": [
                { "type": "ipv6", "prices": [price("fsn1", "0", "0")] },
                { "type": "ipv4", "prices": [price("fsn1", "0.0008", "0.5000000000")] },
            ],
        } }),
        ),
        ("GET", "/v1/locations") => {
            let location = |name: &str, city: &str, zone: &str| json!({ "id": 1, "name": name, "description": "", "country": "DE", "city": city, "network_zone": zone });
            let all = [location("fsn1", "Falkenstein", "eu-central"), location("ash", "Ashburn, VA", "us-east")];
            pages("locations", asked, &all, 1)
        }
        ("GET", "/v1/server_types") => {
            let of = |name: &str, architecture: &str, deprecation: Value| {
                json!({
                    "id": 1, "name": name, "description": name, "cores": 2, "memory": 4.0, "disk": 40,
                    "storage_type": "local", "cpu_type": "shared", "architecture": architecture, "deprecation": deprecation,
                    "locations": [
                        { "id": 1, "name": "fsn1", "available": true, "recommended": true, "deprecation": null },
                        { "id": 2, "name": "ash", "available": false, "recommended": false, "deprecation": null },
                    ],
                    "prices": [price("fsn1", "0.0059524000000000", "3.4900000000000000"), price("ash", "0.0070", "4.4900")],
                })
            };
            let gone = json!({ "announced": "2025-01-01T00:00:00Z", "unavailable_after": "2025-04-01T00:00:00Z" });
            pages(
                "server_types",
                asked,
                &[of("cx23", "x86", Value::Null), of("cx11", "x86", gone), of("cax11", "arm", Value::Null)],
                2,
            )
        }
        ("GET", "/v1/images") => {
            let of = |name: Value, flavor: &str, deprecated: Value| {
                json!({
                    "id": 1, "name": name, "description": "An image", "type": "system", "status": "available",
                    "os_flavor": flavor, "architecture": "x86", "deprecated": deprecated,
                })
            };
            pages(
                "images",
                asked,
                &[
                    of(json!("debian-12"), "debian", Value::Null),
                    of(json!("rocky-9"), "rocky", Value::Null),
                    of(json!("ubuntu-20.04"), "ubuntu", json!("2025-01-01T00:00:00Z")),
                    of(Value::Null, "debian", Value::Null),
                ],
                3,
            )
        }
        ("GET", path) => {
            let kind = path.rsplit('/').next().unwrap();
            assert!(asked.path.contains("label_selector=gantry-server%3D%3Dsrv_1"), "{}", asked.path);
            let one = json!({ "id": 42, "name": "web-1", "location": { "name": "fsn1" }, "labels": {} });
            pages(kind, asked, &[one], 50)
        }
        ("DELETE", "/v1/servers/42") => said(200, &json!({ "action": { "id": 1, "status": "running" } })),
        ("DELETE", "/v1/volumes/42") => refused(404, "not_found"),
        ("DELETE", "/v1/networks/42") => refused(422, "resource_in_use"),
        ("DELETE", "/v1/firewalls/42") => refused(423, "locked"),
        ("DELETE", "/v1/ssh_keys/42") => refused(403, "token_readonly"),
        _ => refused(404, "not_found"),
    }
}

#[tokio::test]
async fn hetzner_keeps_what_accounts_keep() {
    suite(&key(), TOKEN).await;
}

#[tokio::test]
async fn a_token_is_looked_at_and_so_is_whether_it_may_write() {
    let cloud = Cloud::start(cloud).await;
    let identity = cloud.account(key()).validate().await.unwrap();
    assert_eq!(identity.missing().count(), 0);
    assert_eq!(identity.permissions[1].held, Some(true));

    let reading = Cloud::start(|asked| match asked.method.as_str() {
        "POST" => refused(403, "token_readonly"),
        _ => said(200, &json!({ "servers": [] })),
    });
    let identity = reading.await.account(key()).validate().await.unwrap();
    assert_eq!(identity.missing().collect::<Vec<_>>(), ["write"]);

    for (status, code, name, transient) in [
        (401, "unauthorized", "credential_refused", false),
        (403, "forbidden", "rejected", false),
        (429, "rate_limit_exceeded", "put_off", true),
        (503, "maintenance", "put_off", true),
    ] {
        let error = Cloud::always(refused(status, code)).await.account(key()).validate().await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (name, transient));
        assert!(error.to_string().contains(code));
    }
    let reset = format!("ratelimit-remaining: 0\r\nratelimit-reset: {}", crate::clouds::testing::NOW + 90);
    let slow = Cloud::always(refused(429, "rate_limit_exceeded").header(&reset)).await;
    let Err(crate::Error::PutOff { wait, .. }) = slow.account(key()).validate().await else { panic!() };
    assert_eq!(wait.unwrap().as_secs(), 90);
}

#[tokio::test]
async fn the_catalogue_is_read_page_by_page_with_its_prices_without_taxes() {
    let cloud = Cloud::start(cloud).await;
    let catalogue = cloud.account(key()).catalogue(None).await.unwrap();
    assert_eq!(catalogue.currency, "EUR");
    let regions: Vec<(&str, &str)> = catalogue.regions.iter().map(|it| (&*it.id, &*it.network_zone)).collect();
    assert_eq!(regions, [("fsn1", "eu-central"), ("ash", "us-east")]);
    assert_eq!(catalogue.sizes.len(), 3);
    let cx23 = &catalogue.sizes[0];
    assert_eq!((cx23.cores, cx23.memory_mib, cx23.disk_gib, cx23.deprecated), (2, 4_096, 40, false));
    let offer = cx23.offer("fsn1").unwrap();
    assert_eq!((offer.hourly, offer.monthly), (Price::read("0.0059524"), Price::read("3.49")));
    assert!(offer.available && !cx23.offer("ash").unwrap().available);
    assert!(catalogue.sizes[1].deprecated);
    assert_eq!(catalogue.sizes[2].architecture, Architecture::Arm);
    let images: Vec<&str> = catalogue.images.iter().map(|it| &*it.id).collect();
    assert_eq!(images, ["debian-12"]);
    assert_eq!(catalogue.extras.address, Price::read("0.5"));
    assert_eq!(catalogue.extras.volume_gib, Price::read("0.044"));
    let needs = crate::clouds::account::Needs { region: "fsn1", size: cx23, static_address: true, volume_gib: 1 };
    assert_eq!(cloud.account(key()).headroom(&needs).await.unwrap(), Headroom::Unsaid);
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let endless = Cloud::start(|asked| {
        let page: u32 = asked.path.split("page=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        said(200, &json!({ "servers": [], "meta": { "pagination": { "next_page": page + 1 } } }))
    });
    let cloud = endless.await;
    let error = cloud.account(key()).tagged("", "srv_1").await.unwrap_err();
    assert_eq!(error.code(), "protocol");
    assert!(cloud.asked().len() < 100);
}

#[tokio::test]
async fn what_is_left_is_found_by_its_label_and_removed() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let things = account.tagged("fsn1", "srv_1").await.unwrap();
    let kinds: Vec<&str> = things.iter().map(|it| &*it.kind).collect();
    assert_eq!(kinds, super::KINDS);
    assert_eq!(things[0].to_string(), "servers 42 (web-1)");
    let of = |kind: &str| Thing { kind: kind.to_owned(), ..things[0].clone() };
    assert_eq!(account.remove(&of("servers")).await.unwrap(), Removal::Removed);
    assert_eq!(account.remove(&of("volumes")).await.unwrap(), Removal::Gone);
    for (kind, name) in
        [("networks", "put_off"), ("firewalls", "put_off"), ("ssh_keys", "rejected"), ("accounts", "configuration")]
    {
        assert_eq!(account.remove(&of(kind)).await.unwrap_err().code(), name, "{kind}");
    }
}

#[tokio::test]
async fn what_was_made_for_an_organization_is_found_by_who_made_it_and_for_whom() {
    let cloud = Cloud::start(|asked| {
        let kind = asked.path.split('?').next().unwrap().rsplit('/').next().unwrap();
        assert!(asked.path.contains("label_selector=gantry-installation%3D%3Dins-1"), "{}", asked.path);
        let of = |id: u32, organization: &str| {
            json!({ "id": id, "name": "x", "labels": {
                "gantry-server": "srv_1", "gantry-organization": organization, "gantry-installation": "ins-1",
            } })
        };
        pages(kind, asked, &[of(42, "org_1"), of(43, "org_2")], 50)
    });
    let mark = Mark { installation: "ins-1", organization: "org_1" };
    let marked = cloud.await.account(key()).marked("", mark).await.unwrap();
    assert_eq!(marked.len(), super::KINDS.len());
    assert!(marked.iter().all(|it| it.thing.id == "42" && it.server == "srv_1" && it.by_label));
}
