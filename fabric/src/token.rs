//! The text forms of tokens: what people copy and paste.
