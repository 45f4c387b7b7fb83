use serde_json::{Value, json};

use crate::clouds::account::{Headroom, Key, Mark, Needs, Removal, Thing, Vendor};
use crate::clouds::price::Price;
use crate::clouds::testing::{Asked, Cloud, Reply, suite};

const SECRET: &str = "Abc8Q~xyz_example.secret";
const ID: &str = "6f1c2a34-8d1e-4b0a-9c55-0a1b2c3d4e5f";

fn key() -> Key {
    let members = [("tenant_id", ID), ("client_id", ID), ("client_secret", SECRET), ("subscription_id", ID)];
    Key::of(Vendor::Azure, members).unwrap()
}

fn said(status: u16, body: &Value) -> Reply {
    Reply::of(status, body.to_string())
}

fn refused(status: u16, code: &str) -> Reply {
    said(status, &json!({ "error": { "code": code, "message": format!("no, says {code}") } }))
}

fn token() -> Reply {
    said(200, &json!({ "token_type": "Bearer", "expires_in": 3_599, "access_token": "eyJ0eXAi.token" }))
}

fn subscription(state: &str) -> Value {
    json!({ "id": format!("/subscriptions/{ID}"), "subscriptionId": ID, "displayName": "Acme", "state": state })
}

fn cloud(asked: &Asked) -> Reply {
    let path = asked.path.split('?').next().unwrap();
    if path == format!("/{ID}/oauth2/v2.0/token") {
        return token();
    }
    if path == "/api/retail/prices" {
        assert!(!asked.headers.contains_key("authorization"));
        let of = |sku: &str, name: &str, product: &str, price: f64| {
            json!({
                "armSkuName": sku, "skuName": name, "productName": product, "unitOfMeasure": "1 Hour", "retailPrice": price,
            })
        };
        if asked.path.contains("Virtual%20Network") {
            return said(200, &json!({ "Items": [of("", "Standard", "IP Addresses", 0.005)], "NextPageLink": null }));
        }
        if asked.path.contains("skip=1000") {
            return said(
                200,
                &json!({ "Items": [of("Standard_B2s", "B2s", "Virtual Machines BS Series", 0.048)], "NextPageLink": null }),
            );
        }
        return said(
            200,
            &json!({
                "Items": [
                    of("Standard_B2s", "B2s Spot", "Virtual Machines BS Series", 0.001),
                    of("Standard_B2s", "B2s", "Virtual Machines BS Series Windows", 0.0562),
                ],
                "NextPageLink": "https://prices.azure.com:443/api/retail/prices?$filter=x&$skip=1000",
            }),
        );
    }
    assert_eq!(asked.headers["authorization"], "Bearer eyJ0eXAi.token");
    let Some(below) = path.strip_prefix(&format!("/subscriptions/{ID}")) else { return refused(404, "NotFound") };
    assert!(asked.path.contains("api-version=") || asked.path.contains("skiptoken"));
    match (asked.method.as_str(), below) {
        ("GET", "") => said(200, &subscription("Enabled")),
        ("GET", "/providers/Microsoft.Authorization/permissions") => said(
            200,
            &json!({ "value": [
            { "actions": ["Microsoft.Compute/*", "*/read"], "notActions": ["Microsoft.Compute/disks/write"] },
            { "actions": ["Microsoft.Network/virtualNetworks/write"], "notActions": [] },
        ] }),
        ),
        ("GET", "/locations") if asked.path.contains("skiptoken") => said(
            200,
            &json!({ "value": [{ "name": "europe", "displayName": "Europe", "metadata": { "regionType": "Logical" } }] }),
        ),
        ("GET", "/locations") => said(
            200,
            &json!({
                "value": [{ "name": "westeurope", "displayName": "West Europe", "metadata": { "regionType": "Physical" } }],
                "nextLink": format!("http://169.254.169.254/subscriptions/{ID}/locations?skiptoken=1"),
            }),
        ),
        ("GET", "/providers/Microsoft.Compute/skus") => {
            assert!(asked.path.contains("location%20eq%20%27westeurope%27"), "{}", asked.path);
            let of = |kind: &str, name: &str, restrictions: Value| {
                json!({
                    "resourceType": kind, "name": name, "family": "standardBSFamily", "locations": ["westeurope"],
                    "capabilities": [
                        { "name": "vCPUs", "value": "2" }, { "name": "MemoryGB", "value": "3.5" },
                        { "name": "CpuArchitectureType", "value": "x64" },
                    ],
                    "restrictions": restrictions,
                })
            };
            let restricted = json!([{ "type": "Location", "reasonCode": "NotAvailableForSubscription" }]);
            said(
                200,
                &json!({ "value": [
                of("virtualMachines", "Standard_B2s", json!([])), of("disks", "Premium_LRS", json!([])),
                of("virtualMachines", "Standard_B4s", restricted),
            ] }),
            )
        }
        ("GET", path) if path.ends_with("offers/debian-12/skus") => {
            said(200, &json!([{ "name": "12-gen2", "id": "x", "location": "westeurope" }, { "name": "12", "id": "y" }]))
        }
        ("GET", path) if path.contains("/artifacttypes/") => refused(404, "NotFound"),
        ("GET", "/providers/Microsoft.Compute/locations/westeurope/usages") => {
            let of = |name: &str, used: u64, limit: i64| {
                json!({
                    "unit": "Count", "currentValue": used, "limit": limit, "name": { "value": name, "localizedValue": format!("All {name}") },
                })
            };
            said(
                200,
                &json!({ "value": [of("cores", 4, 10), of("standardBSFamily", 9, 10), of("availabilitySets", 9, 1)] }),
            )
        }
        ("GET", "/providers/Microsoft.Network/locations/westeurope/usages") => said(
            200,
            &json!({ "value": [
            { "currentValue": 3, "limit": -1, "name": { "value": "PublicIPAddresses" } },
        ] }),
        ),
        ("GET", "/resources") => {
            let of = |kind: &str, name: &str| {
                json!({
                    "id": format!("/subscriptions/{ID}/resourceGroups/gantry-srv-1/providers/{kind}/{name}"), "name": name, "type": kind,
                    "location": "westeurope",
                })
            };
            assert!(asked.path.contains("tagName%20eq%20%27gantry-server%27%20and%20tagValue%20eq%20%27srv_1%27"));
            said(
                200,
                &json!({ "value": [
                of("Microsoft.Network/virtualNetworks", "n"), of("Microsoft.Other/things", "t"), of("Microsoft.Compute/virtualMachines", "web-1"),
            ] }),
            )
        }
        ("GET", "/resourcegroups") => said(
            200,
            &json!({ "value": [{ "id": format!("/subscriptions/{ID}/resourceGroups/gantry-srv-1"), "name": "gantry-srv-1", "location": "westeurope" }] }),
        ),
        ("DELETE", "/resourceGroups/gantry-srv-1") => Reply::of(202, ""),
        ("DELETE", path) if path.ends_with("virtualMachines/web-1") => refused(404, "ResourceNotFound"),
        ("DELETE", path) if path.ends_with("virtualNetworks/n") => refused(400, "InUseSubnetCannotBeDeleted"),
        _ => refused(403, "AuthorizationFailed"),
    }
}

#[tokio::test]
async fn azure_keeps_what_accounts_keep() {
    suite(&key(), SECRET).await;
}

#[tokio::test]
async fn a_secret_is_exchanged_once_and_says_what_it_may() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let identity = account.validate().await.unwrap();
    assert_eq!((identity.account.as_str(), identity.name.as_str()), (ID, "Acme"));
    let missing: Vec<&str> = identity.missing().map(|it| it.rsplit_once("Microsoft.").unwrap().1).collect();
    assert_eq!(
        missing,
        [
            "Resources/subscriptions/resourceGroups/write",
            "Resources/subscriptions/resourceGroups/delete",
            "Compute/disks/write",
            "Network/publicIPAddresses/write"
        ]
    );
    assert_eq!(cloud.asked().iter().filter(|it| it.method == "POST").count(), 1);

    let wrong = json!({ "error": "invalid_client", "error_description": format!("AADSTS7000215: Invalid client secret {SECRET}") });
    let error = Cloud::always(said(401, &wrong)).await.account(key()).validate().await.unwrap_err();
    assert!(error.code() == "credential_refused" && !error.explain().contains(SECRET), "{error}");
    let disabled =
        Cloud::start(|asked| if asked.method == "POST" { token() } else { said(200, &subscription("Disabled")) });
    assert_eq!(disabled.await.account(key()).validate().await.unwrap_err().code(), "credential_refused");
    for (status, code, name) in [
        (403, "AuthorizationFailed", "rejected"),
        (429, "SubscriptionRequestsThrottled", "put_off"),
        (409, "QuotaExceeded", "rejected"),
        (409, "Conflict", "put_off"),
    ] {
        let refusing =
            Cloud::start(move |asked| if asked.method == "POST" { token() } else { refused(status, code) }).await;
        let error = refusing.account(key()).validate().await.unwrap_err();
        assert!(error.code() == name && error.to_string().contains(code), "{error}");
    }
}

#[tokio::test]
async fn a_region_has_sizes_images_and_prices_and_the_token_goes_nowhere_else() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let catalogue = account.catalogue(Some("westeurope")).await.unwrap();
    assert_eq!(catalogue.regions.len(), 1);
    let sizes: Vec<(&str, u32, u64)> = catalogue.sizes.iter().map(|it| (&*it.id, it.cores, it.memory_mib)).collect();
    assert_eq!(sizes, [("Standard_B2s", 2, 3_584), ("Standard_B4s", 2, 3_584)]);
    let offer = &catalogue.sizes[0].offers[0];
    assert_eq!((offer.hourly, offer.available), (Price::read("0.048"), true));
    assert!(!catalogue.sizes[1].offers[0].available);
    assert_eq!(catalogue.images.iter().map(|it| &*it.id).collect::<Vec<_>>(), ["Debian:debian-12:12-gen2"]);
    assert_eq!(catalogue.extras.address, Price::read("3.65"));

    let needs = Needs { region: "westeurope", size: &catalogue.sizes[0], static_address: true, volume_gib: 0 };
    let headroom = account.headroom(&needs).await.unwrap();
    let Headroom::Said(quotas) = &headroom else { panic!() };
    assert_eq!(quotas.len(), 3);
    assert_eq!(headroom.refusal().unwrap().said, "2 more of All standardBSFamily are needed, and 9 of 10 are used");
    let elsewhere = Needs { region: "west europe'", ..needs };
    assert_eq!(account.headroom(&elsewhere).await.unwrap_err().code(), "rejected");
}

#[tokio::test]
async fn what_is_left_is_found_by_its_tag_and_removed_with_its_group() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let things = account.tagged("westeurope", "srv_1").await.unwrap();
    let names: Vec<&str> = things.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["web-1", "n", "gantry-srv-1"]);
    assert_eq!(account.remove(&things[0]).await.unwrap(), Removal::Gone);
    assert_eq!(account.remove(&things[1]).await.unwrap_err().code(), "put_off");
    assert_eq!(account.remove(&things[2]).await.unwrap(), Removal::Removed);
    for id in [format!("/subscriptions/{ID}/resourceGroups/../x"), "/subscriptions/other/resourceGroups/x".to_owned()] {
        let other = Thing { id, ..things[2].clone() };
        assert_eq!(account.remove(&other).await.unwrap_err().code(), "configuration");
    }
}

#[test]
fn stars_mean_what_they_mean_there() {
    let cases = [
        ("*", "Microsoft.Compute/disks/write", true),
        ("Microsoft.Compute/*", "microsoft.compute/disks/write", true),
        ("*/read", "Microsoft.Compute/disks/write", false),
        ("Microsoft.*/disks/*", "Microsoft.Compute/disks/write", true),
        ("Microsoft.Compute/disks/write", "Microsoft.Compute/disks/write", true),
        ("Microsoft.Compute/disks", "Microsoft.Compute/disks/write", false),
    ];
    for (pattern, action, fits) in cases {
        assert_eq!(super::matches(pattern, action), fits, "{pattern}");
    }
}

#[tokio::test]
async fn what_was_made_for_an_organization_is_found_by_its_tags() {
    let cloud = Cloud::start(|asked| {
        let list = asked.path.split('?').next().unwrap().rsplit('/').next().unwrap();
        let of = |kind: &str, name: &str, organization: &str| {
            json!({
                "id": format!("/subscriptions/{ID}/resourceGroups/g/providers/{kind}/{name}"), "name": name, "type": kind,
                "location": "westeurope", "tags": {
                    "gantry-server": "srv_1", "gantry-organization": organization, "gantry-installation": "ins-1",
                },
            })
        };
        let (machine, group) = ("Microsoft.Compute/virtualMachines", "x");
        let all = match list {
            "resources" => json!([of(machine, "web-1", "org_1"), of(machine, "web-2", "org_2")]),
            "resourcegroups" => json!([of(group, "g", "org_1")]),
            _ => return cloud(asked),
        };
        assert!(asked.path.contains("gantry-installation%27%20and%20tagValue%20eq%20%27ins-1%27"), "{}", asked.path);
        said(200, &json!({ "value": all }))
    });
    let mark = Mark { installation: "ins-1", organization: "org_1" };
    let marked = cloud.await.account(key()).marked("", mark).await.unwrap();
    let found: Vec<(&str, &str)> = marked.iter().map(|it| (&*it.thing.name, &*it.server)).collect();
    assert_eq!(found, [("web-1", "srv_1"), ("g", "srv_1")]);
}
