//! Typed reading of a tree: every problem is noted with its place, and reading goes on.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, str::FromStr};

use super::{
    scalar::{Plain, classify},
    tree::{At, Node, Value},
};
use crate::{
    command::{Place, Problem},
    id::Name,
};

/// Reads the nodes of one document and collects what is wrong with them.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) file: Option<String>,
    pub(super) problems: Vec<Problem>,
    /// The object that the document describes, once known.
    pub(super) object: Option<String>,
    /// The domain in which short references are looked up.
    pub(super) home: Option<Name>,
    /// Where each field is.
    pub(super) places: Vec<(String, At)>,
}

/// How a field's value is read: `None` when it is wrong, and then the problem is noted.
pub(super) type Read<T> = fn(&mut Reader, &Node, &str) -> Option<T>;

impl Reader {
    pub(super) fn place(&self, at: At) -> Place {
        Place { file: self.file.clone(), line: at.line, column: at.column }
    }

    /// Where a field that was read is.
    pub(super) fn at_of(&self, path: &str, otherwise: At) -> At {
        self.places.iter().find(|(place, _)| place == path).map_or(otherwise, |(_, at)| *at)
    }

    pub(super) fn problem(
        &mut self,
        at: At,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<Option<String>>,
    ) {
        self.problems.push(Problem {
            place: Some(self.place(at)),
            object: self.object.clone(),
            field: Some(path.to_owned()).filter(|path| !path.is_empty()),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    fn expected(&mut self, node: &Node, path: &str, what: &str) {
        let (found, remedy) = match &node.value {
            Value::Scalar { text, plain: true } => match classify(text) {
                Plain::Null => ("nothing".to_owned(), None),
                Plain::Boolean(value) => (format!("the boolean {value}"), quote(text, what)),
                Plain::Integer | Plain::Float => (format!("the number {}", shown(text)), quote(text, what)),
                Plain::Text => (format!("{:?}", shown(text)), None),
            },
            Value::Scalar { text, plain: false } => (format!("the text {:?}", shown(text)), None),
            Value::List(_) => ("a list".to_owned(), None),
            Value::Map(_) => ("a map".to_owned(), None),
        };
        self.problem(node.at, path, format!("must be {what}, found {found}"), remedy);
    }

    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Scalar { text, plain } if !plain || classify(text) == Plain::Text => Some(text.clone()),
            _ => {
                self.expected(node, path, "text");
                None
            }
        }
    }

    /// Text that is read further by `parse`.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        node: &Node,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(node, path)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                let remedy = holds_address(&text)
                    .then(|| "addresses appear only in an External; declare one and name it here".to_owned());
                self.problem(node.at, path, error.to_string(), remedy);
                None
            }
        }
    }

    pub(super) fn parse_text<T: FromStr<Err: Display>>(&mut self, node: &Node, path: &str) -> Option<T> {
        self.parsed(node, path, str::parse)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, path: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let near = crate::suggest::closest(&text, known.iter().copied());
            let remedy = near.map(|near| format!("did you mean {near}?"));
            let message = format!("{:?} is not one of {}", shown(&text), known.join(", "));
            self.problem(node.at, path, message, remedy);
        }
        found
    }

    pub(super) fn number<T>(&mut self, node: &Node, path: &str, range: RangeInclusive<u32>) -> Option<T>
    where
        T: TryFrom<u32>,
    {
        let number = match &node.value {
            Value::Scalar { text, plain: true } if classify(text) == Plain::Integer => {
                text.parse::<u32>().ok()
            }
            _ => None,
        };
        let value = number.filter(|n| range.contains(n)).and_then(|n| T::try_from(n).ok());
        if value.is_none() {
            self.expected(node, path, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        value
    }

    pub(super) fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        if let Value::Scalar { text, plain: true } = &node.value
            && let Plain::Boolean(value) = classify(text)
        {
            return Some(value);
        }
        self.expected(node, path, "true or false");
        None
    }

    /// The entries of a map, each with its path. Keys that are no names are reported.
    pub(super) fn map<T>(&mut self, node: &Node, path: &str, read: Read<T>) -> Option<Vec<(Name, T)>> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, path, "a map");
            return None;
        };
        let mut values = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let path = format!("{path}.{}", key.text);
            self.places.push((path.clone(), key.at));
            let name = match Name::new(&key.text) {
                Ok(name) => Some(name),
                Err(error) => {
                    self.problem(key.at, &path, error.to_string(), None);
                    None
                }
            };
            values.extend(name.zip(read(self, node, &path)));
        }
        Some(values)
    }

    pub(super) fn list<T>(&mut self, node: &Node, path: &str, read: Read<T>) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.expected(node, path, "a list");
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            self.places.push((path.clone(), item.at));
            values.extend(read(self, item, &path));
        }
        Some(values)
    }
}

/// The fields of a map that have fixed names. Every field that is asked for is known; `finish` reports
/// the others.
pub(super) struct Fields<'n> {
    node: &'n Node,
    path: String,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// `None`, and a problem, when the node is no map.
    pub(super) fn new(r: &mut Reader, node: &'n Node, path: &str) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            r.expected(node, path, "a map");
            return None;
        }
        Some(Self { node, path: path.to_owned(), known: Vec::new() })
    }

    fn entries(&self) -> &'n [(super::tree::Key, Node)] {
        match &self.node.value {
            Value::Map(entries) => entries,
            Value::Scalar { .. } | Value::List(_) => &[],
        }
    }

    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// The node of a field; `null` is as good as absent.
    pub(super) fn get(&mut self, r: &mut Reader, field: &'static str) -> Option<(&'n Node, String)> {
        self.known.push(field);
        let (key, node) = self.entries().iter().find(|(key, _)| key.text == field)?;
        let path = self.path_of(field);
        r.places.push((path.clone(), key.at));
        let null =
            matches!(&node.value, Value::Scalar { text, plain: true } if classify(text) == Plain::Null);
        (!null).then_some((node, path))
    }

    /// A field that may be absent.
    pub(super) fn optional<T>(&mut self, r: &mut Reader, field: &'static str, read: Read<T>) -> Option<T> {
        let (node, path) = self.get(r, field)?;
        read(r, node, &path)
    }

    /// A field that must be there.
    pub(super) fn required<T>(&mut self, r: &mut Reader, field: &'static str, read: Read<T>) -> Option<T> {
        match self.get(r, field) {
            Some((node, path)) => read(r, node, &path),
            None => {
                let path = self.path_of(field);
                r.problem(self.node.at, &path, "is required", None);
                None
            }
        }
    }

    /// Reports the fields that nobody asked for.
    pub(super) fn finish(self, r: &mut Reader) {
        for (key, _) in self.entries() {
            if !self.known.contains(&key.text.as_str()) {
                let remedy = crate::suggest::remedy(&key.text, self.known.iter().copied());
                r.problem(key.at, &self.path_of(&shown(&key.text)), "is no field here", remedy);
            }
        }
    }
}

/// A word for a message: long ones are cut.
pub(super) fn shown(text: &str) -> String {
    const MAX_SHOWN_CHARS: usize = 80;
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn quote(text: &str, what: &str) -> Option<String> {
    (what == "text").then(|| format!("put it in quotes: \"{}\"", shown(text)))
}

/// Whether a word, or a part of it as in `server:192.0.2.1`, is an address or CIDR.
fn holds_address(text: &str) -> bool {
    let is_address = |part: &str| {
        let part = part.split_once('/').map_or(part, |(address, _)| address);
        part.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    };
    let after_role = text.split_once(':').map_or(text, |(_, rest)| rest);
    is_address(text) || is_address(after_role) || text.split(['@', ':']).any(is_address)
}
