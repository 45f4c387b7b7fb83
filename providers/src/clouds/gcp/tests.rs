use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::clouds::account::{Architecture, Headroom, Key, Mark, Needs, Removal, Thing, Vendor};
use crate::clouds::price::Price;
use crate::clouds::testing::{Asked, Cloud, NOW, Reply, suite};

/// A key, what of it must not be seen, and the file it comes in.
fn key() -> (Key, String, RsaKeyPair) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let written = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = written.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).unwrap()).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    let file = json!({
        "type": "service_account", "project_id": "acme-1", "private_key_id": "0123", "private_key": pem,
        "client_email": "ci@acme-1.iam.gserviceaccount.com", "client_id": "1",
        "token_uri": "http://169.254.169.254/token", "universe_domain": "evil.example",
    });
    let key = Key::of(Vendor::Gcp, [("service_account", &*file.to_string())]).unwrap();
    (key, lines[5].to_owned(), pair)
}

fn said(status: u16, body: &Value) -> Reply {
    Reply::of(status, body.to_string())
}

fn refused(status: u16, reason: &str) -> Reply {
    let message = format!("no, says {reason}");
    said(
        status,
        &json!({ "error": { "code": status, "message": message, "errors": [{ "message": message, "reason": reason }] } }),
    )
}

fn sku(description: &str, usage: &str, unit: &str, nanos: i64) -> Value {
    json!({
        "description": description, "category": { "usageType": usage }, "serviceRegions": ["europe-west1"],
        "pricingInfo": [{ "pricingExpression": { "usageUnit": unit, "tieredRates": [{ "unitPrice": { "units": "0", "nanos": nanos } }] } }],
    })
}

fn cloud(asked: &Asked) -> Reply {
    let path = asked.path.split('?').next().unwrap();
    if path == "/token" {
        return said(200, &json!({ "access_token": "ya29.token", "expires_in": 3_599, "token_type": "Bearer" }));
    }
    assert_eq!(asked.headers["authorization"], "Bearer ya29.token");
    let is_second = asked.path.contains("pageToken=two");
    match (asked.method.as_str(), path) {
        ("POST", "/v1/projects/acme-1:testIamPermissions") => {
            said(200, &json!({ "permissions": ["compute.instances.create", "compute.networks.create"] }))
        }
        ("GET", "/compute/v1/projects/acme-1") if asked.path.contains("quotas") => said(
            200,
            &json!({ "quotas": [{ "metric": "NETWORKS", "limit": 5.0, "usage": 5.0 }, { "metric": "SNAPSHOTS", "limit": 1.0, "usage": 9.0 }] }),
        ),
        ("GET", "/compute/v1/projects/acme-1") => said(200, &json!({ "name": "acme-1", "id": "42" })),
        ("GET", "/compute/v1/projects/acme-1/regions/europe-west1") => said(
            200,
            &json!({ "quotas": [
            { "metric": "CPUS", "limit": 24.0, "usage": 2.0 }, { "metric": "N2_CPUS", "limit": 8.0, "usage": 8.0 },
            { "metric": "INSTANCES", "limit": 24.0, "usage": 1.0 }, { "metric": "STATIC_ADDRESSES", "limit": 8.0, "usage": 8.0 },
        ] }),
        ),
        ("GET", "/compute/v1/projects/acme-1/regions") if is_second => {
            said(200, &json!({ "items": [{ "name": "us-east1", "status": "DOWN", "zones": [] }] }))
        }
        ("GET", "/compute/v1/projects/acme-1/regions") => said(
            200,
            &json!({ "nextPageToken": "two", "items": [{
            "name": "europe-west1", "status": "UP",
            "zones": ["https://www.googleapis.com/compute/v1/projects/acme-1/zones/europe-west1-b", "x/zones/europe-west1-c"],
        }] }),
        ),
        ("GET", path) if path.ends_with("/machineTypes") => {
            let of =
                |name: &str, cores: u32, memory: u64| json!({ "name": name, "guestCpus": cores, "memoryMb": memory });
            let mut all = vec![of("e2-small", 2, 2_048), of("n2-standard-2", 2, 8_192), of("zz-1", 1, 1_024)];
            if path.contains("west1-c") {
                all.truncate(1);
                all.push(
                    json!({ "name": "t2a-standard-1", "guestCpus": 1, "memoryMb": 4_096, "architecture": "ARM64" }),
                );
            }
            said(200, &json!({ "items": all }))
        }
        ("GET", "/compute/v1/projects/debian-cloud/global/images") => said(
            200,
            &json!({ "items": [
            { "family": "debian-12", "description": "Debian 12", "architecture": "X86_64" },
            { "family": "debian-10", "description": "Debian 10", "deprecated": { "state": "DEPRECATED" } }, {},
        ] }),
        ),
        ("GET", "/compute/v1/projects/ubuntu-os-cloud/global/images") => said(
            200,
            &json!({ "items": [
            { "family": "ubuntu-2404-lts-arm64", "description": "Ubuntu", "architecture": "ARM64" },
            { "family": "ubuntu-minimal-2404-lts-amd64", "description": "Ubuntu", "architecture": "X86_64" },
        ] }),
        ),
        ("GET", "/v1/services/6F81-5844-456A/skus") if is_second => said(
            200,
            &json!({ "skus": [
            sku("Balanced PD Capacity in Belgium", "OnDemand", "GiBy.mo", 110_000_000),
            sku("External IP Charge on a Standard VM", "OnDemand", "h", 5_000_000),
        ] }),
        ),
        ("GET", "/v1/services/6F81-5844-456A/skus") => said(
            200,
            &json!({ "nextPageToken": "two", "skus": [
            sku("E2 Instance Core running in Belgium", "OnDemand", "h", 23_980_000),
            sku("E2 Instance Ram running in Belgium", "OnDemand", "GiBy.h", 3_210_000),
            sku("Spot Preemptible N2 Instance Core running in Belgium", "Preemptible", "h", 1),
            sku("N2 Custom Instance Core running in Belgium", "OnDemand", "h", 7),
            sku("N2 Instance Core running in Belgium", "OnDemand", "h", 34_000_000),
            sku("N2 Instance Ram running in Belgium", "OnDemand", "GiBy.h", 4_600_000),
        ] }),
        ),
        ("GET", path) => {
            let kind = path.rsplit('/').next().unwrap();
            let filter = if asked.path.contains("filter=labels.gantry-server%3Dsrv_1") { "labels" } else { "name" };
            assert!(filter == "labels" || asked.path.contains("filter=name%20eq%20gantry-srv-1.*"), "{}", asked.path);
            match kind {
                "instances" if path.contains("west1-b") => said(
                    200,
                    &json!({ "items": [
                    { "id": "1", "name": "web-1", "zone": "https://www.googleapis.com/compute/v1/projects/acme-1/zones/europe-west1-b" },
                ] }),
                ),
                "firewalls" => said(
                    200,
                    &json!({ "items": [{ "id": "2", "name": "gantry-srv-1-in-0" }, { "id": "3", "name": "gantry-srv-12-in-0" }] }),
                ),
                "networks" => said(200, &json!({ "items": [{ "id": "4", "name": "gantry-srv-1" }] })),
                _ => said(200, &json!({})),
            }
        }
        ("DELETE", "/compute/v1/projects/acme-1/zones/europe-west1-b/instances/web-1") => {
            said(200, &json!({ "name": "operation-1" }))
        }
        ("DELETE", "/compute/v1/projects/acme-1/global/firewalls/gantry-srv-1-in-0") => refused(404, "notFound"),
        _ => refused(400, "resourceInUseByAnotherResource"),
    }
}

#[tokio::test]
async fn google_cloud_keeps_what_accounts_keep() {
    let (key, secret, _) = key();
    suite(&key, &secret).await;
}

#[tokio::test]
async fn a_token_is_signed_for_where_tokens_come_from_and_asked_for_once() {
    let (key, _, pair) = key();
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key.clone());
    let identity = account.validate().await.unwrap();
    assert_eq!((identity.account.as_str(), identity.name.as_str()), ("acme-1", "ci@acme-1.iam.gserviceaccount.com"));
    assert_eq!(identity.missing().count(), super::PERMISSIONS.len() - 2);
    let asked = cloud.asked();
    let tokens: Vec<&Asked> = asked.iter().filter(|it| it.path == "/token").collect();
    assert_eq!(tokens.len(), 1);
    let form: std::collections::BTreeMap<String, String> =
        url::form_urlencoded::parse(tokens[0].body.as_bytes()).into_owned().collect();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (signed, signature) = form["assertion"].rsplit_once('.').unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 3_600)));

    // Where its file would send us, nobody goes: neither we nor Terraform's plugin.
    let environment = key.environment("europe-west1");
    let (_, file) = &environment[0];
    assert!(
        file.contains("https://oauth2.googleapis.com/token") && !file.contains("169.254") && !file.contains("evil")
    );

    let gone =
        Cloud::always(said(400, &json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." })))
            .await;
    let error = gone.account(key.clone()).validate().await.unwrap_err();
    assert!(error.code() == "credential_refused" && error.to_string().contains("Invalid JWT"), "{error}");
    for (status, reason, name) in
        [(403, "rateLimitExceeded", "put_off"), (403, "forbidden", "rejected"), (403, "quotaExceeded", "rejected")]
    {
        let refusing =
            Cloud::start(move |asked| if asked.path == "/token" { cloud_token() } else { refused(status, reason) })
                .await;
        let error = refusing.account(key.clone()).validate().await.unwrap_err();
        assert_eq!(error.code(), name, "{error}");
    }
    for bad in ["", "[]", "{}", r#"{"project_id":"a/../b","client_email":"a@b","private_key":"x"}"#] {
        assert!(Key::of(Vendor::Gcp, [("service_account", bad)]).is_err());
    }
}

fn cloud_token() -> Reply {
    said(200, &json!({ "access_token": "ya29.token", "expires_in": 3_599 }))
}

#[tokio::test]
async fn a_region_has_sizes_with_zones_and_prices_put_together() {
    let (key, ..) = key();
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key);
    assert_eq!(account.catalogue(None).await.unwrap().regions.len(), 2);
    let catalogue = account.catalogue(Some("europe-west1")).await.unwrap();
    let size = |id: &str| catalogue.sizes.iter().find(|it| it.id == id).unwrap();
    let small = size("e2-small").offer("europe-west1").unwrap();
    assert_eq!(small.zones, ["europe-west1-b", "europe-west1-c"]);
    // Half a core and two GiB.
    assert_eq!(small.hourly, Price::read("0.01841"));
    assert_eq!(size("n2-standard-2").offers[0].hourly, Price::read("0.1048"));
    assert_eq!(size("zz-1").offers[0].hourly, None);
    assert_eq!(size("t2a-standard-1").architecture, Architecture::Arm);
    let images: Vec<&str> = catalogue.images.iter().map(|it| &*it.id).collect();
    assert_eq!(images, ["debian-cloud/debian-12", "ubuntu-os-cloud/ubuntu-2404-lts-arm64"]);
    assert_eq!((catalogue.extras.volume_gib, catalogue.extras.address), (Price::read("0.11"), Price::read("3.65")));

    let needs = Needs { region: "europe-west1", size: size("n2-standard-2"), static_address: false, volume_gib: 0 };
    let headroom = account.headroom(&needs).await.unwrap();
    let said = headroom.refusal().unwrap().said;
    assert_eq!(
        said,
        "2 more of N2_CPUS are needed, and 8 of 8 are used; 1 more of NETWORKS are needed, and 5 of 5 are used"
    );
    let needs = Needs { size: size("e2-small"), static_address: true, ..needs };
    let Headroom::Said(quotas) = account.headroom(&needs).await.unwrap() else { panic!() };
    let short: Vec<&str> = quotas.iter().filter(|it| !it.fits()).map(|it| &*it.name).collect();
    assert_eq!(short, ["STATIC_ADDRESSES", "NETWORKS"]);
}

#[tokio::test]
async fn what_is_left_is_found_by_labels_and_names_and_removed() {
    let (key, ..) = key();
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key);
    let things = account.tagged("europe-west1", "srv_1").await.unwrap();
    let found: Vec<&str> = things.iter().map(|it| &*it.id).collect();
    assert_eq!(
        found,
        ["zones/europe-west1-b/instances/web-1", "global/firewalls/gantry-srv-1-in-0", "global/networks/gantry-srv-1"]
    );
    assert_eq!(account.remove(&things[0]).await.unwrap(), Removal::Removed);
    assert_eq!(account.remove(&things[1]).await.unwrap(), Removal::Gone);
    assert_eq!(account.remove(&things[2]).await.unwrap_err().code(), "put_off");
    let other = Thing { id: "global/networks/../../other".to_owned(), ..things[2].clone() };
    assert_eq!(account.remove(&other).await.unwrap_err().code(), "configuration");
}

#[tokio::test]
async fn what_was_made_for_an_organization_is_found_by_its_labels_and_the_rest_by_its_name() {
    let (key, ..) = key();
    let cloud = Cloud::start(|asked| {
        let path = asked.path.split('?').next().unwrap();
        let kind = path.rsplit('/').next().unwrap();
        let labels = |organization: &str| json!({ "gantry-server": "srv_1", "gantry-organization": organization, "gantry-installation": "ins-1" });
        if asked.path.contains("filter=labels.gantry-installation%3Dins-1") {
            return match kind {
                "instances" if path.contains("west1-b") => said(
                    200,
                    &json!({ "items": [
                        { "name": "web-1", "zone": "x/zones/europe-west1-b", "labels": labels("org_1") },
                        { "name": "web-2", "zone": "x/zones/europe-west1-b", "labels": labels("org_2") },
                    ] }),
                ),
                _ => said(200, &json!({})),
            };
        }
        if asked.path.contains("filter=name%20eq%20gantry-srv-.*") {
            return match kind {
                "networks" => said(
                    200,
                    &json!({ "items": [{ "name": "gantry-srv-01h455vb4pex5vsknk084sn02q" }, { "name": "gantry-srv-web" }] }),
                ),
                _ => said(200, &json!({})),
            };
        }
        cloud(asked)
    });
    let mark = Mark { installation: "ins-1", organization: "org_1" };
    let marked = cloud.await.account(key).marked("europe-west1", mark).await.unwrap();
    let found: Vec<(&str, &str, bool)> = marked.iter().map(|it| (&*it.thing.name, &*it.server, it.by_label)).collect();
    let network = ("gantry-srv-01h455vb4pex5vsknk084sn02q", "srv_01h455vb4pex5vsknk084sn02q", false);
    assert_eq!(found, [("web-1", "srv_1", true), network]);
}
