//! Texts of others that become part of a row.

use rockpool_store::limits::PORTFOLIO_TEXT_BYTES;

/// The beginning of a text in one line that a row has room for.
pub fn cut(text: &str) -> String {
    cut_to(text, PORTFOLIO_TEXT_BYTES)
}

/// The beginning of a text in one line, of so many bytes at most.
pub fn cut_to(text: &str, most: usize) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while text.len() > most {
        text.pop();
    }
    text
}

/// Whether a text may be part of a row's key: short, in one line, and in JSON no longer than it is.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= PORTFOLIO_TEXT_BYTES / 2 && !text.chars().any(|c| c.is_control() || c == '"' || c == '\\')
}
