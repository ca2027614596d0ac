//! Work: a template joined with the payouts at the confirmed tip. One for all miners of a class.

use std::sync::Arc;

use rockpool_net::wire::share::{Script, Share};

use crate::template::Template;

/// A template joined with payouts: all of a share but header, script and extranonce.
#[derive(Debug)]
pub struct Work {
    /// The template.
    pub template: Arc<Template>,
    /// The share to be: header zero and script meaningless until a submit fills them, all else final, proof's prefix length, midstate
    /// and branch included.
    pub draft: Share,
    /// Coinbase bytes before the extranonce: `coinb1` of every job of this work.
    pub prefix: Vec<u8>,
    /// While the parent is genesis all goes to the share's own script, so this work is for that script alone.
    pub only_for: Option<Script>,
}
