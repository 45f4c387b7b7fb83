//! SSH keys, keys of people, and machines that are there already, as far as the API goes: workers get in.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Platform};

// Made by ssh-keygen, for these tests and nothing else.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBufDTCwd50NKmUBDLrbhqTtoEloT3GiARMiHah3XZJD";
const PRIVATE: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACAbnw0wsHedDSplAQy624ak7aBJaE9xogETIh2od12SQwAAAJiIhTiPiIU4
jwAAAAtzc2gtZWQyNTUxOQAAACAbnw0wsHedDSplAQy624ak7aBJaE9xogETIh2od12SQw
AAAEDesKgXpWE1VGnYDyySbJ+VgnwZC1uiluYHRrzlfEEsURufDTCwd50NKmUBDLrbhqTt
oEloT3GiARMiHah3XZJDAAAAD2FkYUBleGFtcGxlLmNvbQECAwQFBg==
-----END OPENSSH PRIVATE KEY-----
";
const LOCKED: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABDZTgcNQ4
dcpef7tueMYyOXAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIM/2nYSYevyZiMLm
CxGx60FDMVnraR6KcT7Y3a9Qxo25AAAAkIgVC74+90Hz04WvOQNIqqAxKwgRKz7MXPEU6c
HBF17D2kQdpYHOx/7dCPZWMe+7Lmw551BnQ805C+g+R/sZQ/IS21iVJwbkn8MLleVi5IGY
Fz8l6MEpGu1L5t++or2ZzXBAXzpjcLtZzC7C8N01h4+XmH9ozoHCtK5/dUr46yv+g9Lhhj
ItDTOcokMEBBiC5Q==
-----END OPENSSH PRIVATE KEY-----
";

fn machine(name: &str) -> Value {
    json!({ "name": name, "address": "db.example.com", "username": "deploy", "host_key": format!("db.example.com {KEY}") })
}

async fn sandbox(actor: &Actor) -> String {
    let body = json!({ "name": "Sandbox", "credential": { "sandbox": { "token": "sandbox-my-first-one" } } });
    actor.post("/cloud-credentials", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
}

fn server(name: &str, credential: &str) -> Value {
    json!({ "name": name, "credential_id": credential, "region": "sandbox-1", "size": "small", "image": "debian-12" })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn keys_are_made_and_brought_along_and_one_is_the_default(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let first = acme.post("/ssh-keys", &json!({ "name": "First" })).await.expect(201);
    let second = acme.post("/ssh-keys", &json!({ "name": "Second", "private_key": PRIVATE })).await.expect(201);
    assert_eq!((&first["default"], &second["default"]), (&json!(true), &json!(false)));
    assert_eq!(second["public_key"], KEY);
    assert!(first["public_key"].as_str().unwrap().starts_with("ssh-ed25519 ") && first["public_key"] != KEY);
    assert!(second["fingerprint"].as_str().unwrap().starts_with("SHA256:"));
    let (one, two) = (path(&first), path(&second));
    for answer in [acme.get("/ssh-keys").await.expect(200), acme.get("/audit-entries").await.expect(200)] {
        assert!(
            !answer.to_string().contains("PRIVATE KEY") && !answer.to_string().contains("esKgXpWE1VGnYDy"),
            "{answer}"
        );
    }
    acme.post("/ssh-keys", &json!({ "name": "FIRST" })).await.problem(409, "name_taken", Some("name"));
    globex.get(&two).await.problem(404, "not_found", None);
    globex.post(&format!("{two}/default"), &json!({})).await.problem(404, "not_found", None);

    // The default stays while there are others, and what gets in somewhere stays as long.
    acme.delete(&one).await.problem(409, "in_use", None);
    assert_eq!(acme.post(&format!("{two}/default"), &json!({})).await.expect(200)["default"], true);
    assert_eq!(acme.get(&one).await.expect(200)["default"], false);
    let credential = sandbox(&acme).await;
    let asked = acme.post("/servers", &server("web-1", &credential)).await.expect(202);
    assert_eq!(asked["server"]["ssh_key_id"], second["id"]);
    let mut chosen = server("web-2", &credential);
    chosen["ssh_key_id"] = first["id"].clone();
    assert_eq!(acme.post("/servers", &chosen).await.expect(202)["server"]["ssh_key_id"], first["id"]);
    assert_eq!(acme.get(&one).await.expect(200)["servers"], 1);
    acme.delete(&one).await.problem(409, "in_use", None);
    let theirs = globex.post("/ssh-keys", &json!({ "name": "First" })).await.expect(201);
    chosen["name"] = json!("web-3");
    chosen["ssh_key_id"] = theirs["id"].clone();
    acme.post("/servers", &chosen).await.problem(404, "not_found", Some("ssh_key_id"));
    acme.post("/servers/estimate", &chosen).await.problem(404, "not_found", Some("ssh_key_id"));
    let gone = "update stacks set ssh_key_id = null where ssh_key_id = (select id from ssh_keys where name = 'First' and organization_id = stacks.organization_id)";
    sqlx::query(gone).execute(&platform.pool).await.unwrap();
    acme.delete(&one).await.expect(204);
    acme.get(&one).await.problem(404, "not_found", None);
    // The only one may go, and another is made when it is needed.
    globex.delete(&path(&theirs)).await.expect(204);
    assert_eq!(globex.post("/servers/connect", &machine("db-1")).await.expect(202)["server"]["state"], "provisioning");
    assert_eq!(globex.get("/ssh-keys").await.expect(200)["items"][0]["name"], "Default");
}

fn path(key: &Value) -> String {
    format!("/ssh-keys/{}", key["id"].as_str().unwrap())
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_no_key_is_refused_with_what_it_is(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (given, said) in [
        (LOCKED, "passphrase"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "Ed25519"),
        ("-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----", "another form"),
        (KEY, "a public key"),
        ("hello", "no private key"),
    ] {
        let refused = acme.post("/ssh-keys", &json!({ "name": "x", "private_key": given })).await;
        let problem = refused.problem(422, "invalid_field", Some("private_key"));
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    assert_eq!(platform.count("ssh_keys").await, 0);
    let credential = sandbox(&acme).await;
    for (given, said) in [
        (PRIVATE.to_owned(), "private key"),
        (format!("no-pty {KEY}"), "without options"),
        ("ssh-dss AAAAB3NzaC1kc3M=".to_owned(), "ssh-dss"),
        ("hello".to_owned(), "no public key"),
        (format!("{KEY}\n{KEY}"), "one line"),
    ] {
        let mut body = server("web-1", &credential);
        body["options"] = json!({ "authorized_keys": [format!("{KEY} ada@example.com"), given] });
        for path in ["/servers", "/servers/estimate"] {
            let problem =
                acme.post(path, &body).await.problem(422, "invalid_field", Some("options.authorized_keys[1]"));
            assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        }
    }
    let mut body = server("web-1", &credential);
    body["options"] = json!({ "authorized_keys": vec![KEY; 21] });
    acme.post("/servers", &body).await.problem(422, "invalid_field", Some("options.authorized_keys"));
    assert_eq!(platform.count("servers").await, 0);
    body["options"] = json!({ "authorized_keys": vec![format!(" {KEY}  ada@example.com\n"); 20] });
    let made = acme.post("/servers", &body).await.expect(202);
    assert_eq!(made["server"]["options"]["authorized_keys"][19], format!("{KEY} ada@example.com"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_machine_that_is_there_is_connected_by_a_job_and_only_forgotten(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let asked = acme.post("/servers/connect", &machine("db-1")).await.expect(202);
    let (server, run) = (&asked["server"], &asked["run"]);
    assert_eq!(
        (&server["kind"], &server["state"], &server["port"]),
        (&json!("connected"), &json!("provisioning"), &json!(22))
    );
    assert_eq!((&server["host_key"], &server["cloud"], &server["region"]), (&json!(KEY), &Value::Null, &Value::Null));
    assert_eq!((&run["kind"], &run["state"]), (&json!("connect"), &json!("queued")));
    let key = acme.get(&format!("/ssh-keys/{}", server["ssh_key_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(asked["public_key"], key["public_key"]);
    let job = acme.get(&format!("/jobs/{}", run["job_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(job["kind"], "servers.connect");
    acme.post("/servers/connect", &machine("db-1")).await.problem(409, "name_taken", Some("name"));

    let path = format!("/servers/{}", server["id"].as_str().unwrap());
    let count = async |path: &str| acme.get(path).await.expect(200)["items"].as_array().unwrap().len();
    assert_eq!((count("/servers?kind=connected").await, count("/servers?kind=made").await), (1, 0));
    assert_eq!((count("/servers?cloud=sandbox").await, count("/servers").await), (0, 1));
    acme.post(&format!("{path}/compare"), &json!({})).await.problem(409, "not_made_here", None);
    acme.post(&format!("{path}/retry"), &json!({})).await.problem(409, "wrong_state", None);
    let cancel = format!("{path}/runs/{}/cancel", run["id"].as_str().unwrap());
    assert_eq!(acme.post(&cancel, &json!({})).await.expect(200)["state"], "cancelled");
    assert_eq!(acme.post(&format!("{path}/retry"), &json!({})).await.expect(202)["kind"], "connect");
    assert_eq!(acme.delete(&path).await.expect(202)["kind"], "forget");
    assert_eq!(count(&format!("{path}/runs")).await, 3);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_machine_that_cannot_be_one_is_refused_by_the_member_at_fault(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (field, given) in [
        ("address", json!("")),
        ("address", json!("127.1")),
        ("address", json!("0x7f000001")),
        ("address", json!("http://db.example.com")),
        ("address", json!("db.example.com:22")),
        ("address", json!("[::1]")),
        ("address", json!("-oProxyCommand=x")),
        ("address", json!("a b")),
        ("address", json!("x".repeat(300))),
        ("port", json!(0)),
        ("port", json!(65_536)),
        ("username", json!("")),
        ("username", json!("-l")),
        ("username", json!("a;b")),
        ("username", json!("x".repeat(33))),
        ("host_key", json!("")),
        ("host_key", json!("SHA256:l8E1WLNRLLCxlWaDYwP4Ywk0HAvgVWT0swdzQ0h7yXU")),
        ("host_key", json!(PRIVATE)),
        ("host_key", json!(format!("{KEY}\n{KEY}"))),
        ("host_key", json!("ssh-rsa AAAAB3NzaC1yc2E=")),
        ("host_key", json!("x".repeat(5_000))),
        ("labels.a b", json!({ "a b": "c" })),
        ("name", json!("Db_1")),
    ] {
        let mut body = machine("db-1");
        body[field.split('.').next().unwrap()] = given;
        acme.post("/servers/connect", &body).await.problem(422, "invalid_field", Some(field));
    }
    let mut body = machine("db-1");
    body.as_object_mut().unwrap().remove("host_key");
    acme.post("/servers/connect", &body).await.problem(422, "invalid_field", Some("host_key"));
    assert_eq!((platform.count("servers").await, platform.count("jobs").await), (0, 0));
    for (number, address) in ["203.0.113.7", "2001:db8::7", "DB.example.com", "db"].iter().enumerate() {
        let mut body = machine(&format!("ok-{number}"));
        body["address"] = json!(address);
        let made = acme.post("/servers/connect", &body).await.expect(202);
        assert_eq!(made["server"]["address"], address.to_lowercase());
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_machine_counts_for_the_license_as_every_server_does(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = json!({ "tier": "starter", "type": "perpetual", "limits": [{ "name": "servers", "most": 1 }] });
    let path = format!("/organizations/{}/license", acme.organization);
    platform.operator().await.post(&path, &license).await.expect(200);
    acme.post("/servers/connect", &machine("db-1")).await.expect(202);
    acme.post("/servers/connect", &machine("db-2")).await.problem(409, "license_limit", None);
    let credential = sandbox(&acme).await;
    acme.post("/servers", &server("web-1", &credential)).await.problem(409, "license_limit", None);
}
