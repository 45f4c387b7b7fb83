//! With the real program, where there is one: it is none of those that packages of Debian bring.

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;

use super::backend::{Backend, StateRefusal, StateStore};
use super::*;
use crate::Secret;

/// A state in memory, which notes who locked it.
#[derive(Default)]
struct InMemory {
    state: Mutex<Option<Vec<u8>>>,
    locks: Mutex<Vec<String>>,
    held_by_another: bool,
}

#[async_trait]
impl StateStore for std::sync::Arc<InMemory> {
    async fn read(&self) -> Result<Option<Vec<u8>>, StateRefusal> {
        Ok(self.state.lock().unwrap().clone())
    }

    async fn write(&self, state: &[u8], lock: Option<&str>) -> Result<(), StateRefusal> {
        assert_eq!(lock, self.locks.lock().unwrap().last().map(String::as_str));
        *self.state.lock().unwrap() = Some(state.to_vec());
        Ok(())
    }

    async fn lock(&self, id: &str, _: &Value) -> Result<(), StateRefusal> {
        if self.held_by_another {
            let holder = json!({ "ID": "11111111-2222-3333-4444-555555555555", "Operation": "OperationTypeApply",
                                 "Who": "somebody@elsewhere", "Created": "2026-03-02T09:00:00Z" });
            return Err(StateRefusal::Locked(holder));
        }
        self.locks.lock().unwrap().push(id.to_owned());
        Ok(())
    }

    async fn unlock(&self, id: Option<&str>) -> Result<(), StateRefusal> {
        assert_eq!(id, self.locks.lock().unwrap().last().map(String::as_str));
        Ok(())
    }
}

fn is_there() -> bool {
    let there = process::find("terraform").or_else(|| process::find("tofu")).is_some();
    if !there {
        println!("this test needs terraform or tofu in PATH, and is left out without");
    }
    there
}

fn terraform(directory: &Path) -> Terraform {
    Terraform::new(Config { directory: Some(directory.to_owned()), ..Config::default() })
}

fn backend_of(store: &std::sync::Arc<InMemory>) -> std::sync::Arc<dyn StateStore> {
    std::sync::Arc::new(std::sync::Arc::clone(store))
}

const TOKEN: &str = "a-token-of-one-run";

#[tokio::test]
async fn what_is_planned_is_made_and_removed_and_the_state_is_ours_to_keep() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let terraform = terraform(folder.path());
    let store = std::sync::Arc::new(InMemory::default());
    let backend = Backend::start(backend_of(&store), Secret::new(TOKEN)).await.unwrap();
    let configuration = json!({
        "resource": { "terraform_data": { "thing": {
            "input": { "name": "a thing" },
            "provisioner": [{ "local-exec": { "command": "echo \"the token is $TF_HTTP_PASSWORD\"" } }],
        } } },
        "output": { "name": { "value": "${terraform_data.thing.output.name}" } },
    });
    let secrets = [TOKEN.to_owned()];
    let environment = backend.environment();
    let new = NewWorkspace {
        name: "run_1",
        configuration: &configuration,
        files: &[],
        environment: &environment,
        secrets: &secrets,
    };
    let workspace = terraform.workspace(new).await.unwrap();
    let (events, mut told) = mpsc::channel(1_000);
    workspace.init(&events, std::future::pending()).await.unwrap();
    let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap();
    assert_eq!(planned.changes, [("terraform_data.thing".to_owned(), "create".to_owned())].into());
    assert!(planned.text.contains("terraform_data.thing will be created"), "{}", planned.text);
    assert!(!planned.bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()));
    workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap();
    assert_eq!(workspace.outputs().await.unwrap()["name"], "a thing");
    let state = String::from_utf8(store.state.lock().unwrap().clone().unwrap()).unwrap();
    assert!(state.contains("a thing") && !state.contains(TOKEN));

    // What was planned before something else was done is not done.
    let stale = workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap_err();
    assert!(stale.to_string().contains("Saved plan is stale"), "{stale}");
    let planned = workspace.plan(true, &events, std::future::pending()).await.unwrap();
    assert_eq!(planned.changes["terraform_data.thing"], "delete");
    workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap();

    drop(events);
    let mut lines = Vec::new();
    while let Some(event) = told.recv().await {
        lines.push(format!("{event:?}"));
    }
    assert!(lines.iter().any(|line| line.contains("the token is [REDACTED]")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(TOKEN)), "{lines:?}");
    drop(workspace);
    assert_eq!(std::fs::read_dir(folder.path().join("runs")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn what_another_holds_is_not_worked_on_and_it_is_said_who_holds_it() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(InMemory { held_by_another: true, ..InMemory::default() });
    let backend = Backend::start(backend_of(&store), Secret::new(TOKEN)).await.unwrap();
    let (configuration, environment) = (json!({}), backend.environment());
    let new = NewWorkspace {
        name: "run_1",
        configuration: &configuration,
        files: &[],
        environment: &environment,
        secrets: &[],
    };
    let workspace = terraform(folder.path()).workspace(new).await.unwrap();
    let (events, _told) = mpsc::channel(1_000);
    workspace.init(&events, std::future::pending()).await.unwrap();
    let refused = workspace.plan(false, &events, std::future::pending()).await.unwrap_err().to_string();
    assert!(refused.contains("Error acquiring the state lock"), "{refused}");
    assert!(refused.contains("11111111-2222-3333-4444-555555555555"), "{refused}");
}

#[tokio::test]
async fn a_program_that_hangs_lies_or_is_not_there_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("terraform");
    for (script, said) in [
        ("echo garbage", "it says no version"),
        ("echo '{\"terraform_version\": \"1.2.9\"}'", "it is version 1.2.9, and 1.5 or a later 1.x is needed"),
        ("echo '{\"terraform_version\": \"2.0.0\"}'", "it is version 2.0.0"),
        ("exit 1", "it says no version"),
    ] {
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let terraform = Terraform::new(Config { program: Some(program.clone()), ..Config::default() });
        let error = terraform.version().await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&program.display().to_string()), "{error}");
    }
    let nowhere = Terraform::new(Config { program: Some(folder.path().join("nothing")), ..Config::default() });
    assert!(matches!(nowhere.version().await, Err(Trouble::Unusable(_))));
}
