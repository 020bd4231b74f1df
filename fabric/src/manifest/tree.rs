//! YAML text as a tree in which every node knows its place.
//!
//! Built from the parser's events rather than with its own loader, for three things that the loader
//! lacks: bounds on depth and on the size that aliases expand to, the place of every key, and going on
//! with the next document after a broken one, so that a file yields all its problems at once. JSON is
//! read by the same parser: YAML 1.2 contains it.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

/// Deepest nesting. The deepest field of a manifest is at 6.
pub(super) const MAX_DEPTH: usize = 32;
/// Most nodes in one text, those that aliases repeat included: nested aliases grow exponentially.
pub(super) const MAX_NODES: usize = 250_000;
/// After this many broken documents the rest of the text is not looked at.
const MAX_FAULTS: usize = 100;

/// A position, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A value and where it starts.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A scalar; one that is not plain (in quotes, or a block) is always text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the text; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: At,
    pub(super) text: String,
}

/// Something wrong with the text itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: At,
    pub(super) message: String,
    pub(super) remedy: Option<&'static str>,
}

impl Fault {
    fn new(at: At, message: impl Into<String>, remedy: Option<&'static str>) -> Self {
        Self { at, message: message.into(), remedy }
    }
}

/// Reads every document of a text. Documents that are broken are left out; the faults say why.
pub(super) fn load(text: &str) -> (Vec<Node>, Vec<Fault>) {
    let mut loader = Loader::default();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while let Err(stop) = loader.stream(rest) {
        let Some(fault) = stop else { break };
        loader.faults.push(fault);
        let next = next_document(rest, loader.document_line - loader.lines_before);
        let Some(skipped) = next.filter(|_| loader.faults.len() < MAX_FAULTS) else { break };
        loader.lines_before += skipped.lines;
        rest = skipped.rest;
    }
    (loader.documents, loader.faults)
}

struct Skipped<'a> {
    lines: u32,
    rest: &'a str,
}

/// The text from the first `---` line after line `line` (from 1). YAML allows no document to have such a
/// line in its midst, so this finds the next document however broken the present one is.
fn next_document(text: &str, line: u32) -> Option<Skipped<'_>> {
    let mut start = 0;
    for (lines, row) in (0..).zip(text.split_inclusive('\n')) {
        let marker = row
            .strip_prefix("---")
            .is_some_and(|tail| tail.is_empty() || tail.starts_with(char::is_whitespace));
        if marker && lines >= line.max(1) {
            return Some(Skipped { lines, rest: &text[start..] });
        }
        start += row.len();
    }
    None
}

#[derive(Default)]
struct Loader {
    documents: Vec<Node>,
    faults: Vec<Fault>,
    /// Lines of the text before what the parser sees.
    lines_before: u32,
    /// Where the present document starts.
    document_line: u32,
    /// Collections that are open, outermost first, and the anchor of each.
    open: Vec<(Node, usize)>,
    /// Keys of open maps that wait for their value.
    keys: Vec<Option<Key>>,
    /// Anchored nodes with their sizes.
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
}

/// `None`: a bound was exceeded and the fault is reported already; nothing more is read.
type Stop = Option<Fault>;

impl Loader {
    fn stream(&mut self, text: &str) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(text);
        self.open.clear();
        self.keys.clear();
        self.document_line = self.lines_before + 1;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| Some(self.scan_fault(&error)))?;
            self.event(event, self.at(span.start))?;
        }
        Ok(())
    }

    fn at(&self, mark: Marker) -> At {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        At {
            line: number(mark.line()).saturating_add(self.lines_before),
            column: number(mark.col()).saturating_add(1),
        }
    }

    fn scan_fault(&self, error: &ScanError) -> Fault {
        let tab = error.info().contains("tab").then_some("indent with spaces, not tabs");
        Fault::new(self.at(*error.marker()), format!("not valid YAML: {}", error.info()), tab)
    }

    fn event(&mut self, event: Event<'_>, at: At) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => {
                self.document_line = at.line;
                self.anchors.clear();
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.count(at, 1)?;
                self.finish(Node { at, value }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.begin(Node { at, value: Value::List(Vec::new()) }, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.begin(Node { at, value: Value::Map(Vec::new()) }, anchor)?;
                self.keys.push(None);
            }
            Event::SequenceEnd => self.end(),
            Event::MappingEnd => {
                self.keys.pop();
                self.end();
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tagged: bool, at: At) {
        if tagged {
            self.faults.push(Fault::new(
                at,
                "YAML tags are not used in manifests",
                Some("leave the !tag out"),
            ));
        }
    }

    fn count(&mut self, at: At, nodes: usize) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!("more than {MAX_NODES} values, those repeated by aliases included");
        self.faults.push(Fault::new(at, message, Some("split the file, and write repeated parts out")));
        Err(None)
    }

    fn begin(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep");
            return Err(Some(Fault::new(node.at, message, None)));
        }
        self.count(node.at, 1)?;
        self.open.push((node, anchor));
        Ok(())
    }

    fn end(&mut self) {
        if let Some((node, anchor)) = self.open.pop() {
            self.finish(node, anchor);
        }
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<(), Stop> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            let message = "an alias of something that is not complete yet";
            return Err(Some(Fault::new(at, message, Some("write the part out"))));
        };
        let (node, size) = (Node { at, ..node.clone() }, *size);
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(Some(Fault::new(at, format!("nested more than {MAX_DEPTH} deep"), None)));
        }
        self.count(at, size)?;
        self.finish(node, 0);
        Ok(())
    }

    /// Puts a complete node into what is open, or takes it as a document.
    fn finish(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            let size = size(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|(parent, _)| &mut parent.value) {
            None => self.documents.push(node),
            Some(Value::List(items)) => items.push(node),
            Some(Value::Map(entries)) => match self.keys.last_mut().and_then(Option::take) {
                Some(key) => entries.push((key, node)),
                None => {
                    let key = self.key(node);
                    if let Some(waiting) = self.keys.last_mut() {
                        *waiting = Some(key);
                    }
                }
            },
            // Scalars are never open.
            Some(Value::Scalar { .. }) => {}
        }
    }

    /// Takes a node as the key of the innermost map.
    fn key(&mut self, node: Node) -> Key {
        let at = node.at;
        let Value::Scalar { text, .. } = node.value else {
            self.faults.push(Fault::new(at, "a key must be a word", None));
            return Key { at, text: String::new() };
        };
        if let Some((Node { value: Value::Map(entries), .. }, _)) = self.open.last()
            && let Some((first, _)) = entries.iter().find(|(first, _)| first.text == text)
        {
            let message = format!("the key {text:?} is there twice, first in line {}", first.at.line);
            self.faults.push(Fault::new(at, message, Some("keep one of the two")));
        }
        Key { at, text }
    }
}

// Both recurse at most MAX_DEPTH deep: deeper nodes are never built.
fn size(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| 1 + size(node)).sum::<usize>(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
    }
}
