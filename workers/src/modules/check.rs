use gantry_jobs::modules::CheckModule;
use gantry_providers::modules::{self, Fetched, Module, Refused, Repository, Tree, archive};
use gantry_schema::digest::sha256;
use gantry_schema::modules::queries::{self, Taken, Version};
use gantry_schema::modules::{Input, Kind, ModuleProblem, ModuleState, Output, Source};
use gantry_schema::servers::state;
use serde_json::json;

use super::{allowed, problem};
use crate::servers::clouds;
use crate::{Context, Done, Failure, Run};

/// What was found out.
struct Looked {
    tree: Tree,
    directory: String,
    commit: Option<String>,
    module: Module,
}

/// Why it is not taken.
enum Unfit {
    Refused(ModuleProblem, String),
    Failure(Failure),
}

impl From<Refused> for Unfit {
    fn from(refused: Refused) -> Self {
        Self::Refused(problem(&refused), refused.said)
    }
}

impl Run for CheckModule {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        let known = queries::version(&mut tx, self.version).await?;
        // It was looked at before, or removed in the meantime.
        let Some((version, cloud)) = known.filter(|(version, _)| version.state == ModuleState::Checking) else {
            return cx.complete(tx).await;
        };
        let archive = queries::archive(&mut tx, self.version).await?;
        tx.commit().await?;
        let allowed = allowed(cx, clouds::vendor(cloud));
        let looked = match look(cx, &version, archive, allowed).await {
            Err(Unfit::Failure(failure)) if cx.is_last_attempt() => Err((ModuleProblem::GaveUp, failure.describe())),
            Err(Unfit::Failure(failure)) => return Err(failure),
            Err(Unfit::Refused(problem, said)) => Err((problem, said)),
            Ok(looked) => Ok(looked),
        };
        let mut tx = cx.begin().await?;
        let result = match looked {
            Ok(looked) => {
                keep(&mut tx, &version, &looked).await?;
                json!({ "state": ModuleState::Ready.as_str() })
            }
            Err((problem, said)) => {
                let said: String = said.chars().filter(|it| *it != '\0').take(2_000).collect();
                queries::refused(&mut tx, self.version, problem, &said).await?;
                json!({ "state": ModuleState::Refused.as_str(), "code": problem.as_str(), "detail": said })
            }
        };
        cx.complete_with(tx, &result).await
    }
}

async fn look(
    cx: &Context,
    version: &Version,
    archive: Option<Vec<u8>>,
    allowed: Vec<String>,
) -> Result<Looked, Unfit> {
    let takes = &cx.providers().modules;
    if !takes.enabled() {
        return Err(Unfit::Refused(ModuleProblem::Off, "this installation takes no modules".to_owned()));
    }
    let (fetched, path) = match &version.source {
        Source::Git { url, reference, path } => {
            let repository = Repository { url, reference };
            let Fetched { tree, commit } = takes.fetch(&version.id.to_string(), &repository, cx.stopped()).await?;
            (Some((tree, commit)), path.clone())
        }
        Source::Archive => (None, None),
    };
    // Reading what has many megabytes is nothing to do between other things.
    let reading = tokio::task::spawn_blocking(move || -> Result<Looked, Refused> {
        let (tree, commit) = match fetched {
            Some((tree, commit)) => (tree, Some(commit)),
            None => (archive::read(&archive.unwrap_or_default())?, None),
        };
        let directory = path.unwrap_or_else(|| tree.top());
        let module = modules::read(&tree, &directory, &allowed)?;
        Ok(Looked { tree, directory, commit, module })
    });
    Ok(reading.await.map_err(|error| Unfit::Failure(Failure::retry(error)))??)
}

async fn keep(tx: &mut gantry_schema::TenantTx, version: &Version, looked: &Looked) -> Result<(), Failure> {
    let Looked { tree, directory, commit, module } = looked;
    let input = |it: &modules::Input| Input {
        name: it.name.clone(),
        kind: Kind::read(&it.kind).unwrap_or(Kind::Any),
        description: it.description.clone(),
        default: it.default.clone(),
        required: it.required,
        sensitive: it.sensitive,
    };
    let output = |it: &modules::Output| Output {
        name: it.name.clone(),
        description: it.description.clone(),
        sensitive: it.sensitive,
    };
    let inputs: Vec<Input> = module.inputs.iter().map(input).collect();
    let outputs: Vec<Output> = module.outputs.iter().map(output).collect();
    let parts: Vec<&[u8]> = tree.files().flat_map(|(path, contents)| [path.as_bytes(), contents]).collect();
    let taken = Taken {
        content: &state::packed(&modules::packed(tree)),
        directory,
        files: tree.count(),
        size: tree.size(),
        sha256: sha256(&parts),
        commit: commit.as_deref(),
        inputs: &inputs,
        outputs: &outputs,
        providers: &module.providers,
    };
    queries::taken(tx, version.id, &taken).await?;
    Ok(())
}
