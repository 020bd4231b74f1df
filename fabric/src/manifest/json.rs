//! The one thing in which JSON is no YAML: characters beyond the basic plane, such as emoji, may be escaped
//! in JSON as two surrogates (RFC 8259, section 7), and many writers do so.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// JSON text with such escapes replaced by their characters; any other text as it is. Places behind one
/// in the same line move to the left.
pub(super) fn as_yaml(text: &str) -> Cow<'_, str> {
    let maybe = text.trim_start().starts_with(['{', '[']) && text.contains("\\u");
    if !maybe || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Cow::Borrowed(text);
    }
    let mut yaml = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\\') {
        let (before, escape) = rest.split_at(start);
        yaml.push_str(before);
        let replaced = surrogate_pair(escape);
        yaml.extend(replaced);
        // Valid JSON: every backslash is followed by one more character, of one byte.
        let taken = if replaced.is_some() { 12 } else { 2 };
        if replaced.is_none() {
            yaml.push_str(&escape[..taken]);
        }
        rest = &escape[taken..];
    }
    yaml.push_str(rest);
    Cow::Owned(yaml)
}

/// The character of `\ud83d\ude00` at the start of the text.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?;
        u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let units = [unit(0)?, unit(6)?];
    // A pair of ordinary characters also decodes, to two.
    let mut decoded = char::decode_utf16(units);
    let first = decoded.next()?.ok()?;
    decoded.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_of_surrogates_are_replaced() {
        let text = r#"["\ud83d\ude00", "\\ud83d\\ude00", "\u0041\u0042", "\n\""]"#;
        assert_eq!(as_yaml(text), "[\"😀\", \"\\\\ud83d\\\\ude00\", \"\\u0041\\u0042\", \"\\n\\\"\"]");
        for same in ["a: \\ud83d\\ude00", "[\"\\ud83d\\ude00\"", "{}"] {
            assert_eq!(as_yaml(same), same);
        }
    }
}
