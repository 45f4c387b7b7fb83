//! What is written in Terraform's language, whichever of its two forms it is in, as blocks of one kind.

use hcl_edit::expr::{Array, Expression, Object, ObjectKey};
use hcl_edit::structure::{Attribute, Body};
use hcl_edit::template::{Element, StringTemplate};
use hcl_edit::{Decorated, Formatted, Ident, Number, Span as _, parser};
use serde_json::Value;

use super::json::Json;
use super::{Fault, Refused};

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    file: String,
    line: Option<usize>,
    block: String,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, " ({})", self.block)
    }
}

/// A block of the outermost level.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: String,
    pub(super) labels: Vec<String>,
    pub(super) body: Body,
    pub(super) at: At,
}

/// Blocks of the outermost level with how many labels each has; nothing else is taken.
const KINDS: &[(&str, usize)] = &[
    ("check", 1),
    ("data", 2),
    ("locals", 0),
    ("module", 1),
    ("moved", 0),
    ("output", 1),
    ("provider", 1),
    ("resource", 2),
    ("terraform", 0),
    ("variable", 1),
];

/// Reads a file; `None`: there is nothing of Terraform in it.
pub(super) fn read(path: &str, contents: &[u8]) -> Result<Option<Vec<Block>>, Refused> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let lower = name.to_ascii_lowercase();
    // Read by OpenTofu in the place of the others, or put over what others say.
    for end in [".tofu", ".tofu.json"] {
        if lower.ends_with(end) {
            return Err(policy(format!("{path}: files that only OpenTofu reads are not taken; name it .tf")));
        }
    }
    let Some(stem) = lower.strip_suffix(".tf.json").or_else(|| lower.strip_suffix(".tf")) else { return Ok(None) };
    if stem == "override" || stem.ends_with("_override") {
        return Err(policy(format!("{path}: files that are put over others are not taken; change what they change")));
    }
    let malformed = |line: Option<usize>, why: &str| {
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        Refused::new(Fault::Malformed, format!("{path}{line}: {why}"))
    };
    let text = std::str::from_utf8(contents).map_err(|_| malformed(None, "it is not written in UTF-8"))?;
    let odd = |it: char| (it.is_control() && !matches!(it, '\t' | '\n')) || it == '\u{feff}';
    if let Some(at) = text.replace("\r\n", "\n").find(odd) {
        let line = 1 + text.get(..at).unwrap_or_default().matches('\n').count();
        return Err(malformed(Some(line), "there is a control character in it"));
    }
    let blocks = if lower.strip_suffix(".json").is_some() {
        let json: Json = serde_json::from_str(text).map_err(|error| malformed(Some(error.line()), "it is no JSON"))?;
        of_json(path, &json)
    } else {
        let body = parser::parse_body(text)
            .map_err(|error| malformed(Some(error.location().line()), error.message().trim()))?;
        of_body(path, text, body)
    };
    blocks.map(Some)
}

fn policy(said: String) -> Refused {
    Refused::new(Fault::Policy, said)
}

fn of_body(path: &str, text: &str, body: Body) -> Result<Vec<Block>, Refused> {
    let mut blocks = Vec::new();
    for structure in body {
        let line = structure.span().map(|span| line_of(text, span.start));
        let block = match structure.into_block() {
            Ok(block) => block,
            Err(other) => {
                let name = other.as_attribute().map(|attribute| attribute.key.to_string()).unwrap_or_default();
                let at = At { file: path.to_owned(), line, block: name };
                return Err(Refused::new(Fault::Malformed, format!("{at}: a value stands outside of all blocks")));
            }
        };
        let kind = block.ident.as_str().to_owned();
        let labels: Vec<String> = block.labels.iter().map(|label| label.as_str().to_owned()).collect();
        let at = At { file: path.to_owned(), line, block: named(&kind, &labels) };
        blocks.push(block_of(kind, labels, block.body, at)?);
    }
    Ok(blocks)
}

/// The line on which the byte is.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes().get(..byte).unwrap_or_default().split(|it| *it == b'\n').count()
}

fn named(kind: &str, labels: &[String]) -> String {
    let mut name = kind.to_owned();
    for label in labels.iter().take(2) {
        name.push(' ');
        name.extend(label.chars().take(60).filter(|it| !it.is_control()));
    }
    name
}

fn block_of(kind: String, labels: Vec<String>, body: Body, at: At) -> Result<Block, Refused> {
    match KINDS.iter().find(|(known, _)| *known == kind) {
        Some((_, count)) if *count == labels.len() => Ok(Block { kind, labels, body, at }),
        Some((_, count)) => {
            Err(Refused::new(Fault::Malformed, format!("{at}: a block of this kind has {count} labels")))
        }
        None => {
            let known: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            Err(policy(format!("{at}: blocks of this kind are not taken; there may be {}", known.join(", "))))
        }
    }
}

fn of_json(path: &str, json: &Json) -> Result<Vec<Block>, Refused> {
    let refused = |block: &str, why: &str| {
        let at = At { file: path.to_owned(), line: None, block: block.to_owned() };
        Refused::new(Fault::Malformed, format!("{at}: {why}"))
    };
    let outermost = json.objects().ok_or_else(|| refused("all of it", "it is no object"))?;
    let mut blocks = Vec::new();
    for (kind, value) in outermost.into_iter().flatten().filter(|(kind, _)| kind != "//") {
        let Some((_, count)) = KINDS.iter().find(|(known, _)| known == kind) else {
            let at = At { file: path.to_owned(), line: None, block: named(kind, &[]) };
            block_of(kind.clone(), Vec::new(), Body::new(), at)?;
            continue;
        };
        let mut found: Vec<(Vec<String>, &Json)> = vec![(Vec::new(), value)];
        for _ in 0..*count {
            let mut labelled = Vec::new();
            for (labels, value) in found {
                let objects = value.objects().ok_or_else(|| refused(&named(kind, &labels), "it has no label"))?;
                for (label, value) in objects.into_iter().flatten().filter(|(label, _)| label != "//") {
                    labelled.push(([&labels[..], std::slice::from_ref(label)].concat(), value));
                }
            }
            found = labelled;
        }
        for (labels, value) in found {
            let at = At { file: path.to_owned(), line: None, block: named(kind, &labels) };
            let bodies = value.objects().ok_or_else(|| refused(&at.block, "it is no object"))?;
            for members in bodies {
                let body = body_of(members).map_err(|why| refused(&at.block, &why))?;
                blocks.push(block_of(kind.clone(), labels.clone(), body, at.clone())?);
            }
        }
    }
    Ok(blocks)
}

/// Members as attributes, each of which is there once.
fn body_of(members: &[(String, Json)]) -> Result<Body, String> {
    let mut body = Body::new();
    for (name, value) in members.iter().filter(|(name, _)| name != "//") {
        let shown: String = name.chars().take(60).collect();
        let key = Ident::try_new(name.as_str()).map_err(|_| format!("{shown:?} is no name"))?;
        if body.has_attribute(name) {
            return Err(format!("{name} is there twice; write a list"));
        }
        body.push(Attribute::new(key, expression_of(value)?));
    }
    Ok(body)
}

/// A value as an expression: texts are templates there.
fn expression_of(value: &Json) -> Result<Expression, String> {
    Ok(match value {
        Json::Null => Expression::null(),
        Json::Bool(value) => Expression::Bool(Decorated::new(*value)),
        Json::Number(number) => {
            let read = number.as_i64().map(Number::from).or_else(|| number.as_u64().map(Number::from));
            let read = read.or_else(|| number.as_f64().and_then(Number::from_f64));
            Expression::Number(Formatted::new(read.ok_or_else(|| format!("{number} is no number"))?))
        }
        Json::Text(text) => template_of(text)?,
        Json::List(list) => {
            let mut array = Array::new();
            for one in list {
                array.push(expression_of(one)?);
            }
            Expression::Array(array)
        }
        Json::Members(members) => {
            let mut object = Object::new();
            for (name, value) in members {
                let key = ObjectKey::Expression(template_of(name)?);
                if object.insert(key, expression_of(value)?).is_some() {
                    return Err(format!("{name:?} is there twice"));
                }
            }
            Expression::Object(object)
        }
    })
}

fn template_of(text: &str) -> Result<Expression, String> {
    if !text.contains("${") && !text.contains("%{") {
        return Ok(Expression::String(Decorated::new(text.to_owned())));
    }
    let shown: String = text.chars().take(60).collect();
    let template = parser::parse_template(text).map_err(|error| format!("{shown:?}: {}", error.message().trim()))?;
    let mut written = StringTemplate::new();
    for element in template {
        written.push(element);
    }
    Ok(Expression::from(written))
}

/// The bodies that a member has, whether it is written as blocks or as values.
pub(super) fn bodies(body: &Body, name: &str) -> Vec<Vec<(String, Expression)>> {
    let mut found = Vec::new();
    for block in body.get_blocks(name) {
        let members = block.body.attributes().map(|it| (it.key.as_str().to_owned(), it.value.clone()));
        found.push(members.collect());
    }
    let Some(attribute) = body.get_attribute(name) else { return found };
    match &attribute.value {
        Expression::Array(array) => found.extend(array.iter().filter_map(members)),
        value => found.extend(members(value)),
    }
    found
}

/// The members of an object whose names are plain.
pub(super) fn members(value: &Expression) -> Option<Vec<(String, Expression)>> {
    let object = value.as_object()?;
    let member = |(key, value): (&ObjectKey, &hcl_edit::expr::ObjectValue)| {
        let name = match key {
            ObjectKey::Ident(name) => name.as_str().to_owned(),
            ObjectKey::Expression(name) => literal(name)?.as_str()?.to_owned(),
        };
        Some((name, value.expr().clone()))
    };
    object.iter().map(member).collect()
}

/// A value that says nothing but itself; `None`: it has to be worked out.
pub(super) fn literal(value: &Expression) -> Option<Value> {
    Some(match value {
        Expression::Null(_) => Value::Null,
        Expression::Bool(value) => Value::Bool(*value.value()),
        Expression::Number(number) => {
            let number = number.value();
            let read = number.as_i64().map(Value::from).or_else(|| number.as_u64().map(Value::from));
            read.or_else(|| number.as_f64().map(Value::from))?
        }
        Expression::String(text) => Value::String(text.value().clone()),
        Expression::StringTemplate(template) => Value::String(plain(template.iter())?),
        Expression::HeredocTemplate(heredoc) => Value::String(plain(heredoc.template.iter())?),
        Expression::Parenthesis(inner) => literal(inner.inner())?,
        Expression::Array(array) => Value::Array(array.iter().map(literal).collect::<Option<_>>()?),
        Expression::Object(_) => {
            let members = members(value)?.into_iter();
            Value::Object(members.map(|(name, value)| Some((name, literal(&value)?))).collect::<Option<_>>()?)
        }
        Expression::UnaryOp(operation) => match literal(&operation.expr)? {
            Value::Number(number) => match number.as_i64().and_then(i64::checked_neg) {
                Some(whole) => whole.into(),
                None => Value::from(-number.as_f64()?),
            },
            _ => return None,
        },
        _ => return None,
    })
}

fn plain<'a>(elements: impl Iterator<Item = &'a Element>) -> Option<String> {
    elements.map(|element| element.as_literal().map(|text| text.value().as_str())).collect()
}
