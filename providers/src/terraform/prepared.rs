//! What Terraform makes of what strangers wrote, as it says itself: which plugins it fetched, which modules, and which resources
//! run programs.

use std::io::ErrorKind;

use hcl_edit::parser;
use serde_json::Value;

use super::confinement::make_private;
use super::{Trouble, Workspace};
use crate::modules::Tree;

/// The directory of a module, beside the configuration that calls it.
pub(crate) const MODULE: &str = "module";

/// What `init` prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initialized {
    /// Plugins, by where they are: `registry.terraform.io/hashicorp/null`.
    pub providers: Vec<String>,
    /// Modules that are none of the directory.
    pub fetched: Vec<String>,
}

impl Workspace {
    /// Writes the files of a module beside the configuration.
    ///
    /// # Errors
    /// When that does not work.
    pub fn lay(&self, tree: &Tree) -> Result<(), Trouble> {
        let place = self.cell.work.join(MODULE);
        make_private(&place)?;
        tree.write(&place)?;
        Ok(self.cell.give(&place)?)
    }

    /// What `init` prepared.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn initialized(&self) -> Result<Initialized, Trouble> {
        let read = |path: &str| match self.cell.read(path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| Trouble::Garbage("init")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Trouble::System(error)),
        };
        let lock = read(".terraform.lock.hcl")?;
        let lock = parser::parse_body(&lock).map_err(|_| Trouble::Garbage("init"))?;
        let providers = lock.get_blocks("provider").filter_map(|block| block.labels.first());
        let providers = providers.map(|label| label.as_str().to_owned()).collect();
        let manifest = read(".terraform/modules/modules.json")?;
        let manifest: Value = match manifest.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).map_err(|_| Trouble::Garbage("init"))?,
        };
        let sources = manifest["Modules"].as_array().into_iter().flatten().filter_map(|it| it["Source"].as_str());
        let is_inside = |source: &&str| source.is_empty() || source.starts_with("./") || source.starts_with("../");
        let fetched = sources.filter(|source| !is_inside(source)).map(str::to_owned).collect();
        Ok(Initialized { providers, fetched })
    }
}

/// Addresses of resources that run programs, in a module of a configuration as `show -json` has it.
pub(super) fn provisioners(module: &Value) -> Vec<String> {
    let resources = module["resources"].as_array().into_iter().flatten();
    let runs = |resource: &&Value| resource["provisioners"].as_array().is_some_and(|them| !them.is_empty());
    let mut found: Vec<String> =
        resources.filter(runs).map(|it| it["address"].as_str().unwrap_or_default().to_owned()).collect();
    for (name, call) in module["module_calls"].as_object().into_iter().flatten() {
        found.extend(provisioners(&call["module"]).into_iter().map(|address| format!("module.{name}.{address}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_that_resources_run_are_found_in_whatever_calls_them() {
        let resource = |name: &str| json!({ "address": name, "provisioners": [{ "type": "local-exec" }] });
        let root = json!({
            "resources": [resource("a.b"), { "address": "c.d" }],
            "module_calls": { "it": { "module": {
                "resources": [{ "address": "e.f", "provisioners": [] }],
                "module_calls": { "net": { "module": { "resources": [resource("g.h")] } } },
            } } },
        });
        assert_eq!(provisioners(&root), ["a.b", "module.it.module.net.g.h"]);
        assert!(provisioners(&Value::Null).is_empty());
    }
}
