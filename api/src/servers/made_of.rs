//! What a server is made of, where an organization wrote it.

use std::collections::BTreeMap;

use gantry_schema::credentials::Cloud;
use gantry_schema::modules::queries as rows;
use gantry_schema::modules::{Given, Used, fit};
use gantry_schema::{ModuleId, ModuleVersionId, TenantTx};
use poem_openapi::Object;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Error};
use crate::field::has_nul;

/// Bytes of all inputs together, as JSON.
const LARGEST: usize = 64 * 1024;

/// A module to make a server of, and what it is given.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub(super) struct NewServerModule {
    /// Which.
    id: ModuleId,
    /// Which version of it; absent: the newest that is taken.
    #[oai(validator(minimum(value = "1")))]
    version: Option<i32>,
    /// What it is given, by the names of its inputs: at most 64 KiB. Those that the platform gives are left out; what is sensitive is kept
    /// sealed, and not shown again.
    inputs: Option<BTreeMap<String, Value>>,
}

/// What a server is made of.
#[derive(Debug, Object)]
pub(super) struct ServerModule {
    /// The module.
    id: ModuleId,
    /// The version of it.
    version: i32,
    /// What it was given, without what is sensitive.
    inputs: BTreeMap<String, Value>,
}

impl From<Used> for ServerModule {
    fn from(used: Used) -> Self {
        Self { id: used.module, version: used.number, inputs: used.inputs }
    }
}

impl NewServerModule {
    /// The version that is meant, and what it is given, if that fits.
    pub(super) async fn read(&self, tx: &mut TenantTx, cloud: Cloud) -> Result<(ModuleVersionId, Given), Error> {
        let module = rows::find(tx, self.id).await?.ok_or_else(|| Error::not_found(self.id).at("module.id"))?;
        if module.cloud != cloud {
            let detail =
                format!("it is for {}, and the credential is of {cloud}; choose another of the two", module.cloud);
            return Err(Error::field("module.id", detail));
        }
        let version = rows::ready(tx, self.id, self.version).await?;
        let version = version.ok_or_else(|| {
            let (field, detail) = match self.version {
                Some(_) => ("module.version", "it has no such version that is taken; see its versions"),
                None => ("module.id", "no version of it is taken yet; see its state"),
            };
            Error::new(Code::WrongState, detail).at(field)
        })?;
        let inputs = self.inputs.clone().unwrap_or_default();
        let written = serde_json::to_string(&inputs).unwrap_or_default();
        if written.len() > LARGEST || has_nul(&written) {
            let detail = "at most 64 KiB are taken, and no character U+0000; give it less";
            return Err(Error::field("module.inputs", detail));
        }
        let given = fit(&version.inputs, inputs).map_err(|unfit| {
            let name: String = unfit.name.chars().take(100).collect();
            Error::field(format!("module.inputs.{name}"), unfit.why)
        })?;
        Ok((version.id, given))
    }
}
