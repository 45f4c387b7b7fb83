//! What a module may not do here. Terraform's own reading of it is held against the same when it is planned.

use std::collections::BTreeMap;

use hcl_edit::expr::{Expression, FuncCall, Traversal, TraversalOperator};
use hcl_edit::structure::Body;
use hcl_edit::visit::{self, Visit};
use hcl_edit::{Decorated, Span as _};

use super::language::{At, Block, bodies, line_of, literal, members};
use super::{Fault, Refused};
use crate::clouds::Vendor;

/// Plugins that reach no other machine and no file of this one.
const USUAL: &[&str] =
    &["hashicorp/cloudinit", "hashicorp/null", "hashicorp/random", "hashicorp/time", "hashicorp/tls"];

/// What is part of Terraform itself.
const BUILT_IN: &str = "terraform.io/builtin/terraform";

/// Where Terraform and OpenTofu find plugins whose source names no host.
const REGISTRIES: &[&str] = &["registry.terraform.io/", "registry.opentofu.org/"];

/// What a provider may be told: where it works, and what it writes on what it makes. Credentials are the platform's to give,
/// and where a cloud is, is not for a module to say.
const OF_PROVIDERS: &[&str] =
    &["alias", "default_labels", "default_tags", "features", "ignore_tags", "project", "region", "version", "zone"];

/// Functions that read what their first argument names.
const READING: &[&str] = &[
    "file",
    "filebase64",
    "filebase64sha256",
    "filebase64sha512",
    "fileexists",
    "filemd5",
    "fileset",
    "filesha1",
    "filesha256",
    "filesha512",
    "templatefile",
];

/// Plugins that modules for a cloud may use.
#[must_use]
pub fn provider_sources(vendor: Option<Vendor>, more: &[String]) -> Vec<String> {
    let of_cloud: &[&str] = match vendor {
        Some(Vendor::Aws) => &["hashicorp/aws"],
        Some(Vendor::Gcp) => &["hashicorp/google", "hashicorp/google-beta"],
        Some(Vendor::Azure) => &["hashicorp/azurerm"],
        Some(Vendor::Digitalocean) => &["digitalocean/digitalocean"],
        Some(Vendor::Hetzner) => &["hetznercloud/hcloud"],
        None => &[],
    };
    let known = of_cloud.iter().chain(USUAL).map(|it| (*it).to_owned());
    known.chain(more.iter().map(|it| source(it))).chain([BUILT_IN.to_owned()]).collect()
}

/// The source of a plugin without the registry that everybody asks.
#[must_use]
pub fn source(written: &str) -> String {
    let written = written.to_ascii_lowercase();
    let short = REGISTRIES.iter().find_map(|host| written.strip_prefix(host));
    short.unwrap_or(&written).to_owned()
}

fn refused(at: &At, what: &str) -> Refused {
    Refused::new(Fault::Policy, format!("{at}: {what}"))
}

/// Whether a block may be there, as far as it can be said from it alone. `text` is the file it stands in.
pub(super) fn check(block: &Block, text: &str) -> Result<(), Refused> {
    let body = &block.body;
    let names = |body: &Body| -> Vec<String> {
        let attributes = body.attributes().map(|it| it.key.as_str().to_owned());
        attributes.chain(body.blocks().map(|it| it.ident.as_str().to_owned())).collect()
    };
    let has = |name: &str| {
        let dynamic = |it: &hcl_edit::structure::Block| it.has_ident("dynamic") && it.has_labels(&[name]);
        names(body).iter().any(|it| it == name) || body.blocks().any(dynamic)
    };
    match block.kind.as_str() {
        "terraform" => {
            let known = ["required_version", "required_providers"];
            if let Some(other) = names(body).iter().find(|name| !known.contains(&name.as_str())) {
                let what = format!("{other} is not taken; the platform says where the state is kept");
                return Err(refused(&block.at, &what));
            }
        }
        "provider" => {
            if let Some(other) = names(body).iter().find(|name| !OF_PROVIDERS.contains(&name.as_str())) {
                let what = format!(
                    "{other} is not taken; the platform gives the credential, and a provider may have {}",
                    OF_PROVIDERS.join(", ")
                );
                return Err(refused(&block.at, &what));
            }
        }
        "resource" | "data" => {
            if has("provisioner") || has("connection") {
                let what = "provisioners and connections run programs, and are not taken; use the machine's user data";
                return Err(refused(&block.at, what));
            }
            let kind = block.labels.first().map(String::as_str).unwrap_or_default();
            if block.kind == "data" && ["terraform_remote_state", "tls_certificate"].contains(&kind) {
                return Err(refused(&block.at, "it reads from elsewhere, and is not taken; make it an input"));
            }
        }
        "check" if has("data") => {
            return Err(refused(&block.at, "data in a check is not taken; put it in a block of its own"));
        }
        "module" => drop(called(block)?),
        _ => {}
    }
    let mut reader = Reader { at: &block.at, text, wrong: None };
    reader.visit_body(body);
    reader.wrong.map_or(Ok(()), Err)
}

/// The directory that a block of modules calls, as it is written there.
pub(super) fn called(block: &Block) -> Result<String, Refused> {
    let source = block.body.get_attribute("source").and_then(|it| literal(&it.value));
    match source.as_ref().and_then(|it| it.as_str()) {
        Some(inside) if inside.starts_with("./") || inside.starts_with("../") => Ok(inside.to_owned()),
        _ => {
            let what =
                "modules from elsewhere are not taken; put it beside this one, and write ./ or ../ with its directory";
            Err(refused(&block.at, what))
        }
    }
}

/// What plugins the blocks of one directory use: its name for each, and where that is. Those that may not be used refuse it.
pub(super) fn providers(blocks: &[Block], allowed: &[String]) -> Result<BTreeMap<String, String>, Refused> {
    let mut sources = BTreeMap::new();
    for block in blocks.iter().filter(|block| block.kind == "terraform") {
        for (name, value) in bodies(&block.body, "required_providers").into_iter().flatten() {
            let written = match members(&value) {
                Some(members) => members.into_iter().find(|(member, _)| member == "source").map(|(_, value)| value),
                None => None,
            };
            let named = match written {
                Some(written) => literal(&written).and_then(|it| it.as_str().map(source)),
                None => Some(format!("hashicorp/{name}")),
            };
            let named = named.ok_or_else(|| refused(&block.at, &format!("the source of {name} is no plain text")))?;
            permitted(&block.at, &named, allowed)?;
            sources.insert(name, named);
        }
    }
    for block in blocks {
        let label = block.labels.first().map(String::as_str).unwrap_or_default();
        let mut used = Vec::new();
        match block.kind.as_str() {
            "provider" => used.push(label.to_owned()),
            "resource" | "data" => {
                used.push(label.split('_').next().unwrap_or_default().to_owned());
                used.extend(block.body.get_attribute("provider").and_then(|it| first(&it.value)));
            }
            _ => {}
        }
        for name in used {
            let named = match sources.get(&name) {
                Some(named) => named.clone(),
                None if name == "terraform" => BUILT_IN.to_owned(),
                None => format!("hashicorp/{name}"),
            };
            permitted(&block.at, &named, allowed)?;
            sources.insert(name, named);
        }
    }
    sources.retain(|_, named| named != BUILT_IN);
    Ok(sources)
}

fn permitted(at: &At, named: &str, allowed: &[String]) -> Result<(), Refused> {
    if allowed.iter().any(|it| it == named) {
        return Ok(());
    }
    let there_are: Vec<&str> = allowed.iter().map(String::as_str).filter(|it| *it != BUILT_IN).collect();
    let shown: String = named.chars().take(100).collect();
    Err(refused(at, &format!("the plugin {shown} is not taken; there may be {}", there_are.join(", "))))
}

/// The name before the first dot: `aws` of `aws.west`.
fn first(value: &Expression) -> Option<String> {
    match value {
        Expression::Variable(name) => Some(name.as_str().to_owned()),
        Expression::Traversal(traversal) => first(&traversal.expr),
        _ => literal(value)?.as_str().and_then(|text| text.split('.').next()).map(str::to_owned),
    }
}

/// Looks for what reads files that are none of the module's.
struct Reader<'a> {
    at: &'a At,
    text: &'a str,
    wrong: Option<Refused>,
}

impl Reader<'_> {
    fn found(&mut self, what: &str, span: Option<std::ops::Range<usize>>) {
        let line = span.map(|span| line_of(self.text, span.start));
        let line = line.map(|line| format!(" on line {line}")).unwrap_or_default();
        self.wrong.get_or_insert_with(|| refused(self.at, &format!("{what}{line}")));
    }
}

impl Visit for Reader<'_> {
    fn visit_func_call(&mut self, call: &FuncCall) {
        let name = call.name.name.as_str();
        if name == "pathexpand" {
            self.found("pathexpand is not taken: nobody's directory is of the module", call.span());
        } else if READING.contains(&name)
            && let Some(path) = call.args.iter().next()
            && beginning(path).is_some_and(|begins| begins.starts_with(['/', '~', '\\']))
        {
            self.found(
                &format!("{name} reads a file that is none of the module's; begin with ${{path.module}}"),
                call.span(),
            );
        }
        visit::visit_func_call(self, call);
    }

    fn visit_traversal(&mut self, traversal: &Traversal) {
        if let Expression::Variable(name) = &traversal.expr
            && name.as_str() == "path"
            && let Some(TraversalOperator::GetAttr(member)) = traversal.operators.first().map(Decorated::value)
            && member.as_str() != "module"
        {
            let what = format!("path.{} is none of the module's; write path.module", member.as_str());
            self.found(&what, traversal.span());
        }
        visit::visit_traversal(self, traversal);
    }
}

/// What a text begins with, as far as that stands there.
fn beginning(value: &Expression) -> Option<String> {
    match value {
        Expression::Parenthesis(inner) => beginning(inner.inner()),
        Expression::StringTemplate(template) => template.iter().next()?.as_literal().map(|text| text.value().clone()),
        Expression::HeredocTemplate(heredoc) => {
            heredoc.template.iter().next()?.as_literal().map(|text| text.value().clone())
        }
        value => literal(value)?.as_str().map(str::to_owned),
    }
}
