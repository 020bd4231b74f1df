//! From text to objects.

use std::collections::BTreeMap;

use super::{
    API_VERSION, MAX_MANIFEST_BYTES, json,
    reader::{Fields, Reader},
    specs,
    tree::{self, At, Node, Value},
};
use crate::{
    command::{Place, Problem},
    id::{Name, ZoneName},
    object::{DomainRule, Kind, Object, ObjectKey, Spec},
};

/// Reads every document of a manifest, YAML or JSON. A list at the top is taken as its documents.
///
/// # Errors
/// Every problem of every document, with its place.
pub fn parse(text: &str, file: Option<&str>) -> Result<Vec<Object>, Vec<Problem>> {
    parse_located(text, file).map(|located| located.objects)
}

/// [`parse`] of bytes that may not be UTF-8.
///
/// # Errors
/// Every problem of every document, with its place.
pub fn parse_bytes(bytes: &[u8], file: Option<&str>) -> Result<Located, Vec<Problem>> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse_located(text, file),
        Err(error) => error,
    };
    let before = &bytes[..error.valid_up_to()];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column =
        before.iter().rev().take_while(|byte| **byte != b'\n').filter(|b| **b & 0xC0 != 0x80).count();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let at = At { line: number(line), column: number(column + 1) };
    Err(vec![problem_at(file, at, "not UTF-8".to_owned(), Some("save the file as UTF-8 text"))])
}

/// [`parse`] that remembers where everything was, so that problems which only the fabric finds can be
/// shown at their place too.
///
/// # Errors
/// Every problem of every document, with its place.
pub fn parse_located(text: &str, file: Option<&str>) -> Result<Located, Vec<Problem>> {
    if text.len() > MAX_MANIFEST_BYTES {
        let message = format!("{} bytes; a manifest has at most {MAX_MANIFEST_BYTES}", text.len());
        return Err(vec![problem_at(
            file,
            At { line: 1, column: 1 },
            message,
            Some("split it into several files"),
        )]);
    }
    let (documents, faults) = tree::load(&json::as_yaml(text));
    let fault = |fault: tree::Fault| problem_at(file, fault.at, fault.message, fault.remedy);
    let mut problems: Vec<Problem> = faults.into_iter().map(fault).collect();
    let mut located = Located::default();
    for document in documents.into_iter().flat_map(documents_of) {
        problems.extend(located.read(&document, file));
    }
    if problems.is_empty() {
        return Ok(located);
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

/// The documents that a top-level node stands for: none when it is empty, its items when it is a list.
pub(super) fn documents_of(node: Node) -> Vec<Node> {
    match node.value {
        Value::Scalar { ref text, plain: true } if text.is_empty() || text == "~" || text == "null" => {
            Vec::new()
        }
        Value::List(items) => items,
        _ => vec![node],
    }
}

pub(super) fn problem_at(file: Option<&str>, at: At, message: String, remedy: Option<&str>) -> Problem {
    let place = Place { file: file.map(str::to_owned), line: at.line, column: at.column };
    Problem { place: Some(place), object: None, field: None, message, remedy: remedy.map(str::to_owned) }
}

/// Objects, and where they and their fields were in the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Located {
    /// The objects, in the order of the text.
    pub objects: Vec<Object>,
    /// By object and path of the field; the object itself has the empty path.
    places: BTreeMap<String, BTreeMap<String, Place>>,
}

impl Located {
    /// Adds what another file holds.
    pub fn extend(&mut self, other: Self) {
        self.objects.extend(other.objects);
        for (object, fields) in other.places {
            self.places.entry(object).or_insert(fields);
        }
    }

    /// Gives problems that have no place the place of their field, or of what is nearest around it.
    #[must_use]
    pub fn locate(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let located = |problem: Problem| match problem.place {
            Some(_) => problem,
            None => Problem { place: self.place_of(&problem), ..problem },
        };
        problems.into_iter().map(located).collect()
    }

    fn place_of(&self, problem: &Problem) -> Option<Place> {
        let fields = self.places.get(problem.object.as_deref()?)?;
        let mut path = problem.field.as_deref().unwrap_or_default();
        loop {
            match (fields.get(path), path.rfind(['.', '['])) {
                (Some(place), _) => return Some(place.clone()),
                (None, Some(end)) => path = &path[..end],
                (None, None) => return fields.get("").cloned(),
            }
        }
    }

    /// Reads one document; gives back its problems.
    fn read(&mut self, node: &Node, file: Option<&str>) -> Vec<Problem> {
        let mut reader = Reader {
            file: file.map(str::to_owned),
            problems: Vec::new(),
            object: None,
            home: None,
            places: Vec::new(),
        };
        let object = document(&mut reader, node);
        let Some(object) = object.filter(|_| reader.problems.is_empty()) else { return reader.problems };
        let title = object.key.to_string();
        if let Some(first) = self.places.get(&title).and_then(|fields| fields.get("")) {
            let message = format!("is described twice, first in line {}", first.line);
            reader.problem(node.at, "", message, "keep one of the two".to_owned());
            return reader.problems;
        }
        let mut fields = BTreeMap::from([(String::new(), reader.place(node.at))]);
        for (path, at) in &reader.places {
            fields.insert(path.clone(), reader.place(*at));
        }
        self.places.insert(title, fields);
        self.objects.push(object);
        Vec::new()
    }
}

fn document(r: &mut Reader, node: &Node) -> Option<Object> {
    let mut f = Fields::new(r, node, "")?;
    let kind = f.required(r, "kind", kind);
    if let Some(kind) = kind {
        // Until the name is known, the kind says at least something.
        r.object = Some(kind.to_string());
    }
    f.required(r, "apiVersion", api_version);
    let key = match (f.get(r, "metadata"), kind) {
        (Some((node, path)), kind) => metadata(r, node, &path, kind),
        (None, _) => {
            r.problem(node.at, "metadata", "is required", "metadata: {name: …}".to_owned());
            None
        }
    };
    if let Some(key) = &key {
        r.object = Some(key.to_string());
        r.home.clone_from(&key.domain);
    }
    let spec = match (f.get(r, "spec"), kind) {
        (Some((node, _)), Some(kind)) => specs::read(r, kind, node),
        (None, Some(kind)) => empty_spec(r, node, kind),
        (_, None) => None,
    };
    f.finish(r);
    Some(Object { key: key?, spec: spec? })
}

pub(super) fn api_version(r: &mut Reader, node: &Node, path: &str) -> Option<()> {
    let text = r.text(node, path)?;
    if text == API_VERSION {
        return Some(());
    }
    let message = format!("{:?} is not known", super::reader::shown(&text));
    r.problem(node.at, path, message, format!("write {API_VERSION}"));
    None
}

fn kind(r: &mut Reader, node: &Node, path: &str) -> Option<Kind> {
    let names = Kind::ALL.map(|kind| (kind.to_string(), kind));
    let words: Vec<(&str, Kind)> = names.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    r.word(node, path, &words)
}

fn metadata(r: &mut Reader, node: &Node, path: &str, kind: Option<Kind>) -> Option<ObjectKey> {
    let mut f = Fields::new(r, node, path)?;
    let name = match kind {
        Some(Kind::Zone) => f.required(r, "name", |r, n, p| r.parse_text::<ZoneName>(n, p)).map(String::from),
        _ => f.required(r, "name", |r, n, p| r.parse_text::<Name>(n, p)).map(String::from),
    };
    let domain_node = f.get(r, "domain");
    let domain = domain_node.as_ref().and_then(|(node, path)| r.parse_text::<Name>(node, path));
    f.finish(r);
    let kind = kind?;
    match (kind.domain_rule(), domain_node) {
        (DomainRule::Required, None) => {
            r.problem(node.at, "metadata.domain", format!("is required: a {kind} lives in a domain"), None);
        }
        (DomainRule::Forbidden, Some((node, path))) => {
            r.problem(node.at, &path, format!("a {kind} lives in no domain"), "leave it out".to_owned());
        }
        _ => {}
    }
    Some(ObjectKey { kind, domain, name: name? })
}

/// Kinds of which every field has a default need no spec.
fn empty_spec(r: &mut Reader, document: &Node, kind: Kind) -> Option<Spec> {
    let empty = Node { at: document.at, value: Value::Map(Vec::new()) };
    specs::read(r, kind, &empty)
}
