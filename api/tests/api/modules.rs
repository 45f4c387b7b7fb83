//! Modules that organizations bring, as far as the API goes: workers look at them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_schema::modules::queries::{self as rows, Taken};
use gantry_schema::modules::{Input, Kind, Output};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Platform};

fn sent(name: &str) -> Value {
    json!({ "name": name, "cloud": "sandbox", "source": { "archive": STANDARD.encode("an archive") } })
}

/// A module that a worker has taken, with three inputs.
async fn taken(platform: &Platform, actor: &Actor, name: &str) -> String {
    let made = actor.post("/modules", &sent(name)).await.expect(202);
    assert_eq!((&made["state"], &made["version"]), (&json!("checking"), &json!(1)));
    let id = made["id"].as_str().unwrap().to_owned();
    take(platform, actor, &id).await;
    id
}

async fn take(platform: &Platform, actor: &Actor, id: &str) {
    let mut tx = platform.app.db.tenant(actor.organization).await.unwrap();
    let newest = rows::find(&mut tx, id.parse().unwrap()).await.unwrap().unwrap().newest;
    let input = |name: &str, kind: Value, required: bool, sensitive: bool| Input {
        name: name.to_owned(),
        kind: Kind::read(&kind).unwrap(),
        description: String::new(),
        default: Value::Null,
        required,
        sensitive,
    };
    let inputs = [
        input("disks", json!(["list", "number"]), false, false),
        input("gantry_name", json!("string"), true, false),
        input("password", json!("string"), true, true),
        input("plan", json!("string"), true, false),
    ];
    let output = |name: &str| Output { name: name.to_owned(), description: String::new(), sensitive: false };
    let outputs = ["address", "host_key", "port", "user"].map(output);
    let taken = Taken {
        content: b"packed",
        directory: "",
        files: 1,
        size: 6,
        sha256: [7; 32],
        commit: None,
        inputs: &inputs,
        outputs: &outputs,
        providers: &[],
    };
    assert!(rows::taken(&mut tx, newest.id, &taken).await.unwrap());
    tx.commit().await.unwrap();
}

async fn credential(actor: &Actor) -> String {
    let body = json!({ "name": "Sandbox", "credential": { "sandbox": { "token": "sandbox-my-first-one" } } });
    actor.post("/cloud-credentials", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
}

fn server(credential: &str, module: &Value) -> Value {
    json!({ "name": "web-1", "credential_id": credential, "region": "sandbox-1", "module": module })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_module_is_brought_updated_and_removed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let id = taken(&platform, &acme, "Web").await;
    let path = format!("/modules/{id}");
    let known = acme.get(&path).await.expect(200);
    assert_eq!((&known["state"], &known["ready_version"]), (&json!("ready"), &json!(1)));
    assert_eq!(known["inputs"][0]["type"], "list(number)");
    assert_eq!(known["inputs"][1]["given_by_platform"], true);
    let job = acme.get(&format!("/jobs/{}", known["job_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(job["kind"], "modules.check");

    let git = json!({ "source": { "git": { "url": "https://git.example/a.git", "ref": "v1.2.0", "path": "/modules/web/" } } });
    let updated = acme.post(&format!("{path}/update"), &git).await.expect(202);
    assert_eq!(
        (&updated["state"], &updated["version"], &updated["ready_version"]),
        (&json!("checking"), &json!(2), &json!(1))
    );
    assert_eq!(updated["source"]["git"]["path"], "modules/web");
    let versions = acme.get(&format!("{path}/versions")).await.expect(200);
    let numbers: Vec<&Value> = versions["items"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(numbers, [&json!(2), &json!(1)]);

    acme.post("/modules", &sent("WEB")).await.problem(409, "name_taken", Some("name"));
    globex.get(&path).await.problem(404, "not_found", None);
    globex.post(&format!("{path}/update"), &git).await.problem(404, "not_found", None);
    globex.delete(&path).await.problem(404, "not_found", None);
    acme.delete(&path).await.expect(204);
    acme.get(&path).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_cannot_be_a_module_is_refused_by_the_member_at_fault(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let large = STANDARD.encode(vec![0; 1024 * 1024 + 1]);
    let git = |url: &str, reference: &str, path: &str| json!({ "git": { "url": url, "ref": reference, "path": path } });
    for (source, field) in [
        (json!({}), "source"),
        (json!({ "archive": "YQ==", "git": { "url": "https://git.example/a", "ref": "main" } }), "source"),
        (json!({ "archive": "not base64" }), "source.archive"),
        (json!({ "archive": "" }), "source.archive"),
        (json!({ "archive": large }), "source.archive"),
        (git("http://git.example/a", "main", ""), "source.git.url"),
        (git("file:///etc/passwd", "main", ""), "source.git.url"),
        (git("https://user:secret@git.example/a", "main", ""), "source.git.url"),
        (git("https://git.example/a", "--upload-pack=id", ""), "source.git.ref"),
        (git("https://git.example/a", "a..b", ""), "source.git.ref"),
        (git("https://git.example/a", "main", "a/../../b"), "source.git.path"),
    ] {
        let body = json!({ "name": "x", "cloud": "sandbox", "source": source });
        let shown: String = body.to_string().chars().take(120).collect();
        println!("{shown}");
        acme.post("/modules", &body).await.problem(422, "invalid_field", Some(field));
    }
    assert_eq!(platform.count("modules").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_gives_its_module_what_that_asks_for_and_nothing_else(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let credential = credential(&acme).await;
    let module = taken(&platform, &acme, "Web").await;
    let secret = "a-password-nobody-may-see";
    let fine = json!({ "plan": "small", "password": secret, "disks": [1, 2] });
    for (inputs, field) in [
        (json!({ "password": "p" }), "module.inputs.plan"),
        (json!({ "plan": "small" }), "module.inputs.password"),
        (json!({ "plan": 1, "password": "p" }), "module.inputs.plan"),
        (json!({ "plan": "small", "password": "p", "disks": ["a"] }), "module.inputs.disks"),
        (json!({ "plan": "small", "password": "p", "disk": [1] }), "module.inputs.disk"),
        (json!({ "plan": "small", "password": "p", "gantry_name": "x" }), "module.inputs.gantry_name"),
        (json!({ "plan": "x".repeat(70_000), "password": "p" }), "module.inputs"),
    ] {
        let body = server(&credential, &json!({ "id": module, "inputs": inputs }));
        acme.post("/servers", &body).await.problem(422, "invalid_field", Some(field));
    }
    let with = |more: Value| {
        let mut body = server(&credential, &json!({ "id": module, "inputs": fine }));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, field) in [
        (json!({ "size": "small" }), "size"),
        (json!({ "image": "debian-12" }), "image"),
        (json!({ "module": null }), "size"),
        (json!({ "module": null, "size": "small" }), "image"),
    ] {
        acme.post("/servers", &with(more)).await.problem(422, "invalid_field", Some(field));
    }
    acme.post("/servers/estimate", &with(json!({}))).await.problem(422, "invalid_field", Some("module"));
    let other = json!({ "id": module, "version": 7, "inputs": fine });
    acme.post("/servers", &server(&credential, &other)).await.problem(409, "wrong_state", Some("module.version"));
    let nobodys = json!({ "id": "mod_01h455vb4pex5vsknk084sn02q", "inputs": fine });
    acme.post("/servers", &server(&credential, &nobodys)).await.problem(404, "not_found", Some("module.id"));
    let hetzner = json!({ "name": "Elsewhere", "cloud": "hetzner", "source": { "archive": "YQ==" } });
    let elsewhere = acme.post("/modules", &hetzner).await.expect(202);
    let elsewhere = json!({ "id": elsewhere["id"], "inputs": fine });
    acme.post("/servers", &server(&credential, &elsewhere)).await.problem(422, "invalid_field", Some("module.id"));
    assert_eq!((platform.count("servers").await, platform.count("runs").await), (0, 0));

    let asked = acme.post("/servers", &with(json!({}))).await.expect(202);
    assert_eq!(asked["server"]["module"]["version"], 1);
    assert_eq!(asked["server"]["module"]["inputs"], json!({ "plan": "small", "disks": [1, 2] }));
    assert_eq!((&asked["server"]["size"], &asked["server"]["image"]), (&json!(""), &json!("")));
    let path = format!("/servers/{}", asked["server"]["id"].as_str().unwrap());
    for answer in [asked, acme.get(&path).await.expect(200), acme.get("/audit-entries").await.expect(200)] {
        assert!(!answer.to_string().contains(secret), "{answer}");
    }
    assert_eq!(platform.count("stacks t where t::text like '%a-password-nobody-may-see%'").await, 0);
    acme.delete(&format!("/modules/{module}")).await.problem(409, "in_use", None);

    // It stays what it was made of.
    let again = json!({ "source": { "archive": "YQ==" } });
    acme.post(&format!("/modules/{module}/update"), &again).await.expect(202);
    take(&platform, &acme, &module).await;
    assert_eq!(acme.get(&path).await.expect(200)["module"]["version"], 1);
    assert_eq!(acme.get(&format!("/modules/{module}")).await.expect(200)["ready_version"], 2);
}
