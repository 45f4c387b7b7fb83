//! Reads a module: what it asks for, what it answers, and whether it is taken.

use std::collections::{BTreeMap, BTreeSet};

use hcl_edit::expr::Expression;
use hcl_edit::parser;
use serde_json::{Value, json};

use super::language::{self, Block, literal, members};
use super::policy;
use super::{Fault, GIVEN, Input, Module, NEEDED, Output, Refused, Tree, USER_DATA};

/// Directories that are read, each as often as it is called.
const MOST_CALLS: usize = 100;

/// Inputs, and outputs, that a module has at most.
const MOST_NAMES: usize = 100;

/// Bytes of a description that are kept.
const LONGEST: usize = 1_000;

/// Names that mean something else where a module is called.
const TAKEN: &[&str] = &["count", "depends_on", "for_each", "lifecycle", "locals", "providers", "source", "version"];

/// Reads the module in a directory of the tree. `allowed` are the plugins it may use.
///
/// # Errors
/// When it is not taken: where, and why.
pub fn read(tree: &Tree, directory: &str, allowed: &[String]) -> Result<Module, Refused> {
    let mut calls = 0;
    let blocks = directory_of(tree, directory, allowed, &mut Vec::new(), &mut calls)?;
    let providers = policy::providers(&blocks, allowed)?;
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    for block in &blocks {
        let Some(name) = block.labels.first() else { continue };
        let twice = match block.kind.as_str() {
            "variable" => inputs.insert(name.clone(), input(block, name)?).is_some(),
            "output" => outputs.insert(name.clone(), output(block, name)).is_some(),
            _ => false,
        };
        if twice {
            return Err(Refused::new(Fault::Malformed, format!("{}: it is there twice", block.at)));
        }
    }
    for (what, count) in [("inputs", inputs.len()), ("outputs", outputs.len())] {
        if count > MOST_NAMES {
            return Err(Refused::new(Fault::Inputs, format!("it has {count} {what}, and {MOST_NAMES} are taken")));
        }
    }
    let needs_key = !outputs.contains_key("host_key") && !inputs.contains_key(USER_DATA);
    let missing: Vec<&str> = NEEDED.iter().copied().filter(|name| !outputs.contains_key(*name)).collect();
    if !missing.is_empty() {
        let said = format!("it has no output {}, by which a server is reached", missing.join(", "));
        return Err(Refused::new(Fault::Outputs, said));
    }
    if needs_key {
        let said = format!(
            "it has no output host_key, and no input {USER_DATA} by which the machine gets one: nobody could tell whether \
             the right machine answers"
        );
        return Err(Refused::new(Fault::Outputs, said));
    }
    let providers = providers.into_iter().collect();
    Ok(Module { inputs: inputs.into_values().collect(), outputs: outputs.into_values().collect(), providers })
}

/// The blocks of a directory, after those that it calls were looked at as well.
fn directory_of(
    tree: &Tree,
    directory: &str,
    allowed: &[String],
    above: &mut Vec<String>,
    calls: &mut usize,
) -> Result<Vec<Block>, Refused> {
    *calls += 1;
    if *calls > MOST_CALLS {
        let said = format!("directories of it call each other more than {MOST_CALLS} times");
        return Err(Refused::new(Fault::Policy, said));
    }
    let mut blocks = Vec::new();
    for (name, contents) in tree.within(directory) {
        let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        let Some(read) = language::read(&path, contents)? else { continue };
        let text = std::str::from_utf8(contents).unwrap_or_default();
        for block in &read {
            policy::check(block, text)?;
        }
        blocks.extend(read);
    }
    if blocks.is_empty() {
        let place = if directory.is_empty() { "it".to_owned() } else { format!("the directory {directory}") };
        return Err(Refused::new(Fault::Empty, format!("there is nothing of Terraform in {place}")));
    }
    policy::providers(&blocks, allowed)?;
    above.push(directory.to_owned());
    for block in blocks.iter().filter(|block| block.kind == "module") {
        let called = policy::called(block)?;
        let inside = joined(directory, &called).filter(|inside| tree.has_directory(inside));
        let Some(inside) = inside else {
            let said = format!("{}: there is no directory {called} in it", block.at);
            return Err(Refused::new(Fault::Policy, said));
        };
        if above.contains(&inside) {
            return Err(Refused::new(Fault::Policy, format!("{}: it calls itself", block.at)));
        }
        directory_of(tree, &inside, allowed, above, calls)?;
    }
    above.pop();
    Ok(blocks)
}

/// A directory as seen from another one; `None`: it leads out.
fn joined(from: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn input(block: &Block, name: &str) -> Result<Input, Refused> {
    let refused = |why: &str| Refused::new(Fault::Inputs, format!("{}: {why}", block.at));
    let value = |name: &str| block.body.get_attribute(name).map(|attribute| &attribute.value);
    if TAKEN.contains(&name) {
        return Err(refused("an input cannot have this name; choose another"));
    }
    if value("ephemeral").is_some_and(|it| literal(it) != Some(Value::Bool(false))) {
        return Err(refused("inputs that are forgotten at once are not taken; make it sensitive"));
    }
    let kind = match value("type") {
        Some(written) => kind(written, 0).ok_or_else(|| refused("its type cannot be understood"))?,
        None => json!("dynamic"),
    };
    let sensitive = value("sensitive").is_some_and(|it| literal(it) != Some(Value::Bool(false)));
    let required = value("default").is_none();
    if name.starts_with("gantry_") && !GIVEN.contains(&name) && required {
        let known: Vec<&str> = GIVEN.iter().copied().filter(|it| it.starts_with("gantry_")).collect();
        return Err(refused(&format!("the platform gives {}, and no other that begins so", known.join(", "))));
    }
    if GIVEN.contains(&name) {
        let fits = match name {
            "gantry_labels" => [json!("dynamic"), json!(["map", "string"]), json!(["map", "dynamic"])].contains(&kind),
            _ => [json!("dynamic"), json!("string")].contains(&kind),
        };
        if !fits {
            let what = if name == "gantry_labels" { "a map of strings" } else { "a string" };
            return Err(refused(&format!("the platform gives {what}")));
        }
    }
    let default = value("default").filter(|_| !sensitive).and_then(literal).unwrap_or_default();
    Ok(Input { name: name.to_owned(), kind, description: description(block), default, required, sensitive })
}

fn output(block: &Block, name: &str) -> Output {
    let sensitive =
        block.body.get_attribute("sensitive").is_some_and(|it| literal(&it.value) != Some(Value::Bool(false)));
    Output { name: name.to_owned(), description: description(block), sensitive }
}

fn description(block: &Block) -> String {
    let written = block.body.get_attribute("description").and_then(|it| literal(&it.value));
    let text = written.as_ref().and_then(Value::as_str).unwrap_or_default();
    let plain: String = text.chars().filter(|it| *it == '\n' || !it.is_control()).collect();
    plain.get(..plain.floor_char_boundary(LONGEST)).unwrap_or_default().trim().to_owned()
}

/// A type, as Terraform writes it in JSON.
fn kind(written: &Expression, depth: usize) -> Option<Value> {
    if depth > 10 {
        return None;
    }
    let inner = |value: &Expression| kind(value, depth + 1);
    match written {
        Expression::Parenthesis(it) => inner(it.inner()),
        // Of the form in JSON, and as it was once written in the other.
        Expression::String(text) => inner(&parser::parse_expr(text.value()).ok()?),
        Expression::Variable(name) => match name.as_str() {
            plain @ ("string" | "number" | "bool") => Some(json!(plain)),
            "any" => Some(json!("dynamic")),
            many @ ("list" | "set" | "map") => Some(json!([many, "dynamic"])),
            _ => None,
        },
        Expression::FuncCall(call) if !call.name.is_namespaced() => {
            let arguments: Vec<&Expression> = call.args.iter().collect();
            match (call.name.name.as_str(), &arguments[..]) {
                (many @ ("list" | "set" | "map"), [one]) => Some(json!([many, inner(one)?])),
                ("tuple", [Expression::Array(array)]) => {
                    Some(json!(["tuple", array.iter().map(inner).collect::<Option<Vec<_>>>()?]))
                }
                ("object", [object]) => {
                    let (mut kinds, mut optional) = (serde_json::Map::new(), BTreeSet::new());
                    for (name, value) in members(object)? {
                        let value = match &value {
                            Expression::FuncCall(call) if call.name.name.as_str() == "optional" => {
                                optional.insert(name.clone());
                                call.args.iter().next()?.clone()
                            }
                            other => other.clone(),
                        };
                        kinds.insert(name, inner(&value)?);
                    }
                    Some(if optional.is_empty() {
                        json!(["object", kinds])
                    } else {
                        json!(["object", kinds, optional])
                    })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::provider_sources;
    use super::*;
    use crate::clouds::Vendor;

    const OUTPUTS: &str = r#"
        output "address" { value = "127.0.0.1" }
        output "port" { value = 22 }
        output "user" { value = "deploy" }
        output "host_key" { value = "ssh-ed25519 AAAA" }
    "#;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, contents) in files {
            tree.add(path, contents.as_bytes().to_vec()).unwrap();
        }
        tree
    }

    fn checked(files: &[(&str, &str)]) -> Result<Module, Refused> {
        let mut all = vec![("outputs.tf", OUTPUTS)];
        all.extend(files);
        read(&tree(&all), "", &provider_sources(Some(Vendor::Hetzner), &[]))
    }

    fn refused(name: &str, text: &str) -> (Fault, String) {
        let refused = checked(&[(name, text)]).expect_err(text);
        (refused.fault, refused.said)
    }

    #[test]
    fn inputs_and_outputs_are_found_in_both_forms() {
        let hcl = r#"
            variable "size" {
              type        = string
              description = "How large."
              default     = "small"
            }
            variable "password" {
              type      = string
              sensitive = true
              default   = "hunter2"
            }
            variable "disks" { type = list(object({ name = string, gib = optional(number, 10) })) }
            variable "anything" {}
            resource "hcloud_server" "it" {
              provider  = hcloud
              name      = "web-${var.size}"
              user_data = templatefile("${path.module}/user-data", { a = -1 })
            }
            terraform {
              required_version = ">= 1.5"
              required_providers {
                hcloud = { source = "hetznercloud/hcloud", version = "~> 1.5" }
              }
            }
        "#;
        let json = r#"{
            "variable": {
                "size": { "type": "string", "description": "How large.", "default": "small" },
                "password": { "type": "string", "sensitive": true, "default": "hunter2" },
                "disks": { "type": "list(object({ name = string, gib = optional(number, 10) }))" },
                "anything": [{}]
            },
            "resource": { "hcloud_server": { "it": { "name": "web-${var.size}" } } },
            "terraform": { "required_providers": { "hcloud": { "source": "hetznercloud/hcloud" } } }
        }"#;
        let input = |name: &str, kind: Value, description: &str, default: Value, required: bool, sensitive: bool| {
            Input { name: name.to_owned(), kind, description: description.to_owned(), default, required, sensitive }
        };
        let disks = json!(["list", ["object", { "name": "string", "gib": "number" }, ["gib"]]]);
        let wanted = [
            input("anything", json!("dynamic"), "", Value::Null, true, false),
            input("disks", disks, "", Value::Null, true, false),
            input("password", json!("string"), "", Value::Null, false, true),
            input("size", json!("string"), "How large.", json!("small"), false, false),
        ];
        for (name, text) in [("main.tf", hcl), ("main.tf.json", json)] {
            let module = checked(&[(name, text)]).unwrap();
            assert_eq!(module.inputs, wanted, "{name}");
            assert_eq!(module.providers, [("hcloud".to_owned(), "hetznercloud/hcloud".to_owned())]);
            let names: Vec<&str> = module.outputs.iter().map(|it| it.name.as_str()).collect();
            assert_eq!(names, ["address", "host_key", "port", "user"]);
        }
    }

    #[test]
    fn what_modules_may_not_do_is_refused_with_where_it_stands() {
        for (text, said) in [
            (
                "resource \"null_resource\" \"a\" {\n  provisioner \"local-exec\" {\n    command = \"id\"\n  }\n}",
                "provisioners",
            ),
            ("resource \"null_resource\" \"a\" {\n  provisioner \"file\" {}\n}", "provisioners"),
            (
                "resource \"null_resource\" \"a\" {\n  dynamic \"provisioner\" {\n    for_each = []\n  }\n}",
                "provisioners",
            ),
            ("resource \"null_resource\" \"a\" {\n  connection {}\n}", "connections"),
            ("data \"external\" \"a\" { program = [\"id\"] }", "hashicorp/external"),
            ("data \"http\" \"a\" { url = \"http://169.254.169.254\" }", "hashicorp/http"),
            ("data \"terraform_remote_state\" \"a\" { backend = \"local\" }", "reads from elsewhere"),
            ("terraform {\n  backend \"s3\" {}\n}", "backend"),
            ("terraform {\n  cloud {}\n}", "cloud"),
            ("terraform {\n  required_providers {\n evil = { source = \"evil/evil\" }\n}\n}", "evil/evil"),
            (
                "terraform {\n  required_providers {\n null = { source = \"evil.example/hashicorp/null\" }\n}\n}",
                "evil.example",
            ),
            ("terraform {\n  required_providers {\n null = { source = \"${var.a}\" }\n}\n}", "no plain text"),
            ("provider \"hcloud\" {\n  token = \"a\"\n}", "token"),
            ("provider \"hcloud\" {\n  endpoint = \"https://evil.example\"\n}", "endpoint"),
            ("provider \"aws\" {}", "hashicorp/aws"),
            ("resource \"null_resource\" \"a\" { provider = evil.b }", "hashicorp/evil"),
            ("module \"a\" { source = \"hashicorp/consul/aws\" }", "from elsewhere"),
            ("module \"a\" { source = \"git::https://evil.example/x\" }", "from elsewhere"),
            ("module \"a\" { source = \"./${var.a}\" }", "from elsewhere"),
            ("module \"a\" { source = \"/etc\" }", "from elsewhere"),
            ("module \"a\" { source = \"../outside\" }", "no directory"),
            ("module \"a\" { source = \"./nowhere\" }", "no directory"),
            ("removed {\n  from = null_resource.a\n}", "removed"),
            ("import {\n  to = null_resource.a\n id = \"a\"\n}", "import"),
            ("ephemeral \"random_password\" \"a\" {}", "ephemeral"),
            ("locals {\n  a = \"b\"\n  c = [for x in [1] : { y = upper(file(\"/etc/passwd\")) }]\n}", "on line 3"),
            ("locals {\n  a = fileexists(\"~/.ssh/id\")\n}", "none of the module's"),
            ("locals {\n  a = templatefile(\"/etc/${var.b}\", {})\n}", "none of the module's"),
            ("locals {\n  a = core::file((\"/etc/passwd\"))\n}", "none of the module's"),
            ("locals {\n  a = \"${file(<<EOT\n/etc/passwd\nEOT\n)}\"\n}", "none of the module's"),
            ("locals {\n  a = path.root\n}", "path.root"),
            ("locals {\n  a = pathexpand(\"~\")\n}", "pathexpand"),
            ("check \"a\" {\n  data \"http\" \"b\" {}\n}", "check"),
        ] {
            let (fault, found) = refused("main.tf", text);
            assert_eq!(fault, Fault::Policy, "{text}: {found}");
            assert!(found.starts_with("main.tf:1 (") && found.contains(said), "{text}: {found}");
        }
    }

    #[test]
    fn the_form_in_json_hides_nothing() {
        for (text, said) in [
            (r#"{"resource": {"null_resource": {"a": {"provisioner": [{"local-exec": {}}]}}}}"#, "provisioners"),
            // Terraform reads both.
            (
                r#"{"resource": {"null_resource": {"a": {"provisioner": {}}}}, "resource": {"null_resource": {"a": {}}}}"#,
                "provisioners",
            ),
            (r#"{"resource": {"null_resource": {"a": [{}, {"connection": {}}]}}}"#, "connections"),
            (r#"[{"terraform": [{"backend": {"http": {}}}]}]"#, "backend"),
            (r#"{"provider": {"hcloud": [{"alias": "a"}, {"token": "b"}]}}"#, "token"),
            (r#"{"module": {"a": {"source": "https://evil.example/x.zip"}}}"#, "from elsewhere"),
            (r#"{"locals": {"a": ["${file(\"/etc/passwd\")}"]}}"#, "none of the module's"),
            (r#"{"locals": {"a": {"${pathexpand(\"~\")}": 1}}}"#, "pathexpand"),
            (r#"{"import": [{"to": "a", "id": "b"}]}"#, "import"),
            (r#"{"terraform": {"required_providers": [{"evil": {"source": "evil/evil"}}]}}"#, "evil/evil"),
        ] {
            let (fault, found) = refused("main.tf.json", text);
            assert_eq!(fault, Fault::Policy, "{text}: {found}");
            assert!(found.starts_with("main.tf.json (") && found.contains(said), "{text}: {found}");
        }
        let twice = r#"{"resource": {"null_resource": {"a": {"triggers": 1, "triggers": 2}}}}"#;
        assert_eq!(refused("main.tf.json", twice).0, Fault::Malformed);
    }

    #[test]
    fn what_one_of_the_two_programs_would_read_otherwise_is_refused() {
        for name in ["main.tofu", "main.TOFU", "a.tofu.json", "override.tf", "main_override.tf.json"] {
            assert_eq!(refused(name, "").0, Fault::Policy, "{name}");
        }
        for text in
            ["a = 1", "variable {}", "variable \"a\" \"b\" {}", "#\r resource", "\u{feff}", "resource \"a\"", "{"]
        {
            assert_eq!(refused("main.tf", text).0, Fault::Malformed, "{text:?}");
        }
        let deep = format!("locals {{\n  a = {}{}\n}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refused("main.tf", &deep).0, Fault::Malformed);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refused("main.tf.json", &deep).0, Fault::Malformed);
        let tree = tree(&[("main.tf", "variable \"a\" {}\nvariable \"a\" {}"), ("outputs.tf", OUTPUTS)]);
        assert_eq!(read(&tree, "", &provider_sources(None, &[])).unwrap_err().fault, Fault::Malformed);
    }

    #[test]
    fn directories_inside_are_read_as_well_and_do_not_go_round_in_circles() {
        let main = "module \"net\" { source = \"./net\" }";
        let fine = checked(&[("main.tf", main), ("net/main.tf", "resource \"random_id\" \"a\" { byte_length = 4 }")]);
        assert!(fine.unwrap().providers.is_empty(), "what is used further down is not given from here");
        let bad = checked(&[("main.tf", main), ("net/main.tf", "data \"external\" \"a\" {}")]).unwrap_err();
        assert!(bad.said.starts_with("net/main.tf:1 (data external a)"), "{}", bad.said);
        let round = checked(&[("main.tf", main), ("net/main.tf", "module \"up\" { source = \"../\" }")]).unwrap_err();
        assert!(round.said.contains("calls itself"), "{}", round.said);
        // Each calls the next one twice.
        let twice = |next: usize| {
            format!("module \"a\" {{ source = \"../m{next}\" }}\nmodule \"b\" {{ source = \"../m{next}\" }}")
        };
        let mut tree = tree(&[("outputs.tf", OUTPUTS), ("main.tf", "module \"a\" { source = \"./m0\" }")]);
        for number in 0..20 {
            tree.add(&format!("m{number}/main.tf"), twice(number + 1).into_bytes()).unwrap();
        }
        tree.add("m20/main.tf", b"locals {}".to_vec()).unwrap();
        let crowd = read(&tree, "", &provider_sources(None, &[])).unwrap_err();
        assert!(crowd.said.contains("more than 100 times"), "{}", crowd.said);
    }

    #[test]
    fn a_server_that_could_not_be_reached_or_told_from_another_is_refused() {
        let of = |text: &str| read(&tree(&[("main.tf", text)]), "", &provider_sources(None, &[])).unwrap_err();
        let missing = of("output \"address\" { value = 1 }");
        assert_eq!((missing.fault, missing.said.contains("port, user")), (Fault::Outputs, true), "{}", missing.said);
        let without_key = OUTPUTS.replace("host_key", "other");
        assert_eq!(of(&without_key).fault, Fault::Outputs);
        let told = format!("{without_key}\nvariable \"gantry_user_data\" {{ type = string }}");
        assert!(read(&tree(&[("main.tf", &told)]), "", &provider_sources(None, &[])).is_ok());
        for text in [
            "variable \"gantry_other\" {}",
            "variable \"gantry_labels\" { type = string }",
            "variable \"region\" { type = number }",
            "variable \"source\" {}",
            "variable \"a\" { type = thing }",
            "variable \"a\" {\n  ephemeral = true\n}",
        ] {
            assert_eq!(refused("main.tf", text).0, Fault::Inputs, "{text}");
        }
        assert_eq!(read(&Tree::default(), "", &[]).unwrap_err().fault, Fault::Empty);
    }
}
