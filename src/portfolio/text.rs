//! Texts of others that become part of a row.

use rockpool_store::limits::PORTFOLIO_TEXT_BYTES;

/// The beginning of a text in one line that a row has room for.
pub fn cut(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while text.len() > PORTFOLIO_TEXT_BYTES {
        text.pop();
    }
    text
}

/// Whether a text may be part of a row's key: short, in one line.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= PORTFOLIO_TEXT_BYTES / 2 && !text.chars().any(char::is_control)
}
