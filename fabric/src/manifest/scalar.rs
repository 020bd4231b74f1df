//! What a plain scalar is under the YAML 1.2 core schema (section 10.3.2).
//!
//! Fields of manifests have types, so this only serves to refuse `name: 80` where text belongs, as the
//! JSON Schema does, and to know what the writer must quote.

/// The type of a plain scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Null,
    Boolean(bool),
    Integer,
    Float,
    Text,
}

pub(super) fn classify(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Boolean(true),
        "false" | "False" | "FALSE" => return Plain::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Plain::Float,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Plain::Float;
    }
    let all = |digits: &str, fits: fn(&char) -> bool| !digits.is_empty() && digits.chars().all(|c| fits(&c));
    let octal = text.strip_prefix("0o").is_some_and(|d| all(d, |c| matches!(c, '0'..='7')));
    let hexadecimal = text.strip_prefix("0x").is_some_and(|d| all(d, char::is_ascii_hexdigit));
    if octal || hexadecimal || all(unsigned, char::is_ascii_digit) {
        return Plain::Integer;
    }
    // Rust takes every core-schema float; of what it takes beyond (inf, nan, infinity) none starts so.
    let starts_like_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if starts_like_number && unsigned.parse::<f64>().is_ok() { Plain::Float } else { Plain::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema() {
        for (text, plain) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("true", Plain::Boolean(true)),
            ("no", Plain::Text),
            ("80", Plain::Integer),
            ("-0x1F", Plain::Text),
            ("0x1F", Plain::Integer),
            ("1e5", Plain::Float),
            (".5", Plain::Float),
            ("-.inf", Plain::Float),
            ("inf", Plain::Text),
            ("1.2.3", Plain::Text),
            ("tcp/80", Plain::Text),
            ("-", Plain::Text),
        ] {
            assert_eq!(classify(text), plain, "{text}");
        }
    }
}
